/* id.c - chance, ids, hex, hashes. */
#include <waybill/base.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

void wb_random_fill(void *out, size_t len)
{
    unsigned char *p = out;

    while (len > 0) {
        ssize_t got = getrandom(p, len > 256 ? 256 : len, 0);
        if (got < 0 && errno != EINTR)
            abort(); /* a kernel without random numbers: ids would repeat */
        if (got > 0) {
            p += got;
            len -= (size_t)got;
        }
    }
}

static uint64_t rotate(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

/* splitmix64 spreads the seed over the state, as the authors of xoshiro advise. */
void wb_rng_seed(struct wb_rng *rng, uint64_t seed)
{
    for (size_t i = 0; i < 4; i++) {
        uint64_t z = (seed += UINT64_C(0x9e3779b97f4a7c15));
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        rng->state[i] = z ^ (z >> 31);
    }
}

uint64_t wb_rng_next(struct wb_rng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t wb_rng_below(struct wb_rng *rng, uint64_t bound)
{
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)(((wide)wb_rng_next(rng) * bound) >> 64);
}

/* Time and version into 16 random bytes. */
static void id_finish(const struct wb_clock *clock, uint8_t ret_id[WB_ID_SIZE])
{
    uint64_t ms = (uint64_t)(wb_wall_ns(clock) / WB_MS);

    for (int i = 0; i < 6; i++)
        ret_id[i] = (uint8_t)(ms >> (40 - 8 * i));
    ret_id[6] = (uint8_t)(0x70 | (ret_id[6] & 0x0f)); /* version 7 */
    ret_id[8] = (uint8_t)(0x80 | (ret_id[8] & 0x3f)); /* variant 10 */
}

void wb_id_new(const struct wb_clock *clock, uint8_t ret_id[WB_ID_SIZE])
{
    wb_random_fill(ret_id, WB_ID_SIZE);
    id_finish(clock, ret_id);
}

/* ---- many ids -------------------------------------------------------------------------------- */

enum { SOURCE_IDS = 255 };

/* A page of its own, which the kernel hands to a child of fork() full of zeros: nothing left. */
struct wb_id_source {
    size_t left;
    uint8_t ids[SOURCE_IDS][WB_ID_SIZE];
};

_Static_assert(sizeof(struct wb_id_source) <= 4096, "the source fits its page");

struct wb_id_source *wb_id_source_create(void)
{
    void *page = mmap(NULL, sizeof(struct wb_id_source), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return NULL;
    if (madvise(page, sizeof(struct wb_id_source), MADV_WIPEONFORK) != 0) {
        (void)munmap(page, sizeof(struct wb_id_source));
        return NULL;
    }
    return page;
}

void wb_id_source_destroy(struct wb_id_source *source)
{
    if (source != NULL)
        (void)munmap(source, sizeof(*source));
}

void wb_id_source_next(struct wb_id_source *source, const struct wb_clock *clock,
                       uint8_t ret_id[WB_ID_SIZE])
{
    if (source == NULL) {
        wb_id_new(clock, ret_id);
        return;
    }
    if (source->left == 0) {
        wb_random_fill(source->ids, sizeof(source->ids));
        source->left = SOURCE_IDS;
    }
    memcpy(ret_id, source->ids[--source->left], WB_ID_SIZE);
    id_finish(clock, ret_id);
}

/* ---- hex, hashes ----------------------------------------------------------------------------- */

void wb_hex_encode(const void *data, size_t len, char *out)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++) {
        out[2 * i] = hex[p[i] >> 4];
        out[2 * i + 1] = hex[p[i] & 15];
    }
    out[2 * len] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool wb_hex_decode(struct wb_str hex, void *ret_data, size_t len)
{
    unsigned char *out = ret_data;

    if (hex.len != 2 * len)
        return false;
    for (size_t i = 0; i < hex.len; i++)
        if (hex_value(hex.ptr[i]) < 0)
            return false;
    for (size_t i = 0; i < len; i++)
        out[i] = (unsigned char)(hex_value(hex.ptr[2 * i]) * 16 + hex_value(hex.ptr[2 * i + 1]));
    return true;
}

int64_t wb_backoff_ns(struct wb_rng *rng, unsigned attempt, int64_t base_ns, int64_t max_ns)
{
    int64_t ceiling = base_ns;

    for (unsigned i = 0; i < attempt && ceiling < max_ns; i++)
        ceiling = ceiling > max_ns / 2 ? max_ns : ceiling * 2;
    if (ceiling > max_ns)
        ceiling = max_ns;
    return (int64_t)wb_rng_below(rng, (uint64_t)ceiling + 1);
}

uint64_t wb_hash(const void *data, size_t len)
{
    const unsigned char *p = data;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}
