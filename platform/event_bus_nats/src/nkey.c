/*
 * nkey.c - the public key of an nkey seed file.
 *
 * nats.c signs with a seed but wants to be told the public key, which users do not have at hand;
 * the nats command line derives it. A seed is base32 of two prefix bytes, 32 bytes of Ed25519 seed
 * and a CRC-16 (ADR-14); a public key is one prefix byte, 32 bytes and the CRC.
 */
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "nats_bus.h"

#define SEED_TEXT   58
#define SEED_BYTES  36
#define KEY_BYTES   35
#define PREFIX_SEED 0x90 /* 'S' */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/* CRC-16/XMODEM. */
static uint16_t crc16(const uint8_t *data, size_t len)
{
    uint16_t crc = 0;

    for (size_t i = 0; i < len; i++) {
        crc = (uint16_t)(crc ^ (data[i] << 8));
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)((crc & 0x8000) != 0 ? (crc << 1) ^ 0x1021 : crc << 1);
    }
    return crc;
}

static bool base32_decode(const char *text, size_t len, uint8_t *out)
{
    unsigned held = 0;
    unsigned bits = 0;

    for (size_t i = 0; i < len; i++) {
        const char *at = memchr(alphabet, text[i], 32);
        if (at == NULL)
            return false;
        held = (held << 5 | (unsigned)(at - alphabet)) & 0xffffU;
        bits += 5;
        if (bits >= 8) {
            bits -= 8;
            *out++ = (uint8_t)(held >> bits);
        }
    }
    return true;
}

static void base32_encode(const uint8_t *data, size_t len, char *out)
{
    unsigned held = 0;
    unsigned bits = 0;

    for (size_t i = 0; i < len; i++) {
        held = (held << 8 | data[i]) & 0xffffU;
        bits += 8;
        while (bits >= 5) {
            bits -= 5;
            *out++ = alphabet[held >> bits & 31U];
        }
    }
    if (bits > 0)
        *out++ = alphabet[held << (5 - bits) & 31U];
    *out = '\0';
}

/* The line that is a seed: by itself, or between the marks of a creds file. */
static bool read_seed(const char *file, char out[SEED_TEXT + 1])
{
    char line[256];
    bool found = false;
    FILE *in = fopen(file, "re");

    if (in == NULL)
        return false;
    while (!found && fgets(line, sizeof(line), in) != NULL) {
        size_t len = strcspn(line, "\r\n \t");
        found = len == SEED_TEXT && line[0] == 'S';
        if (found)
            (void)snprintf(out, SEED_TEXT + 1, "%.*s", SEED_TEXT, line);
    }
    (void)fclose(in);
    OPENSSL_cleanse(line, sizeof(line));
    return found;
}

static bool derive(const uint8_t *seed, uint8_t *out)
{
    size_t len = 32;
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, 32);
    bool done = key != NULL && EVP_PKEY_get_raw_public_key(key, out, &len) == 1 && len == 32;

    EVP_PKEY_free(key);
    return done;
}

static bool seed_to_public(const char *text, char ret_key[57])
{
    uint8_t seed[SEED_BYTES] = {0};
    uint8_t key[KEY_BYTES];

    bool valid = base32_decode(text, SEED_TEXT, seed) && (seed[0] & 0xf8) == PREFIX_SEED;
    if (valid) {
        uint16_t crc = crc16(seed, SEED_BYTES - 2);
        valid = seed[SEED_BYTES - 2] == (crc & 0xff) && seed[SEED_BYTES - 1] == crc >> 8;
    }
    /* The kind of key (user, account, ...) is spread over the two prefix bytes of a seed. */
    key[0] = (uint8_t)((seed[0] & 7) << 5 | (seed[1] & 0xf8) >> 3);
    valid = valid && derive(seed + 2, key + 1);
    OPENSSL_cleanse(seed, sizeof(seed));
    if (!valid)
        return false;
    uint16_t crc = crc16(key, KEY_BYTES - 2);
    key[KEY_BYTES - 2] = (uint8_t)(crc & 0xff);
    key[KEY_BYTES - 1] = (uint8_t)(crc >> 8);
    base32_encode(key, KEY_BYTES, ret_key);
    return true;
}

wb_err event_bus_nats_nkey_public(const char *seed_file, char ret_key[57], struct wb_why *why)
{
    char text[SEED_TEXT + 1];

    if (!read_seed(seed_file, text))
        return wb_fail(why, WB_INVALID,
                       "nkey seed file '%s': cannot be read, or no line of it is a seed (58 "
                       "characters, starting with S)",
                       seed_file);
    bool valid = seed_to_public(text, ret_key);
    OPENSSL_cleanse(text, sizeof(text));
    if (!valid)
        return wb_fail(why, WB_INVALID,
                       "nkey seed file '%s': the seed is damaged (its checksum is wrong); make it "
                       "anew, for example by nsc generate nkey --user",
                       seed_file);
    return WB_OK;
}
