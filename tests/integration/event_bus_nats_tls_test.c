/* TLS: asked for, it is used; what cannot be trusted is refused. */
#include "event_bus_nats_fixture.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

/* ---- a certificate for 127.0.0.1 that signs itself ------------------------------------------- */

static void add_extension(X509 *certificate, int id, const char *value)
{
    X509V3_CTX context;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, id, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static X509 *make_certificate(EVP_PKEY *key)
{
    X509 *certificate = X509_new();
    static const unsigned char name[] = "waybill test";

    assert_non_null(certificate);
    assert_int_equal(X509_set_version(certificate, 2), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(certificate), -60));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600));
    assert_int_equal(X509_set_pubkey(certificate, key), 1);
    X509_NAME *subject = X509_get_subject_name(certificate);
    assert_int_equal(
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, name, sizeof(name) - 1, -1, 0), 1);
    assert_int_equal(X509_set_issuer_name(certificate, subject), 1);
    add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(certificate, NID_subject_alt_name, "IP:127.0.0.1");
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    return certificate;
}

struct identity {
    char dir[256];
    char cert[300];
    char key[300];
    char conf[800]; /* for the server */
};

static void make_identity(struct identity *identity)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");

    assert_non_null(key);
    X509 *certificate = make_certificate(key);
    test_dir_make(identity->dir);
    (void)snprintf(identity->cert, sizeof(identity->cert), "%s/cert.pem", identity->dir);
    (void)snprintf(identity->key, sizeof(identity->key), "%s/key.pem", identity->dir);
    (void)snprintf(identity->conf, sizeof(identity->conf),
                   "tls: { cert_file: \"%s\", key_file: \"%s\" }", identity->cert, identity->key);
    FILE *file = fopen(identity->cert, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, certificate), 1);
    assert_int_equal(fclose(file), 0);
    file = fopen(identity->key, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

/* ---- tests ----------------------------------------------------------------------------------- */

#define MESSAGES 5000

static void count_done(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                       const struct wb_why *why)
{
    (void)ack;
    (void)why;
    if (err == WB_OK)
        atomic_fetch_add((atomic_int *)ctx, 1);
}

static void count_handled(void *ctx, struct event_bus_delivery *delivery)
{
    atomic_fetch_add((atomic_int *)ctx, 1);
    (void)event_bus_ack(delivery);
}

static bool is_all(void *count)
{
    return atomic_load((atomic_int *)count) == MESSAGES;
}

static void everything_works_over_tls_under_load(void **state)
{
    struct identity identity;
    struct test_nats server;
    struct event_bus *bus = NULL;
    atomic_int published = 0;
    atomic_int handled = 0;
    char payload[512] = "";
    const struct message msg = {.subject = wb_str("orders.a"),
                                .payload = {payload, sizeof(payload)}};
    struct wb_why why = {""};

    (void)state;
    make_identity(&identity);
    test_nats_start(&server, &(struct test_nats_options){.conf = identity.conf});
    const struct event_bus_nats_options options = {.url = server.url, .tls_ca_file = identity.cert};
    if (event_bus_nats_create(&options, true, &bus, &why) != WB_OK)
        fail_msg("%s", why.text);
    make_stream(bus, "ORDERS", "orders.>");
    struct event_bus_subscription *s =
        subscribe(bus, "orders.>",
                  (struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL,
                                                          .durable = "worker",
                                                          .handler = count_handled,
                                                          .ctx = &handled});
    for (int i = 0; i < MESSAGES; i++)
        assert_ok(event_bus_publish_async(bus, &msg, NULL, count_done, &published, NULL));
    assert_true(test_wait(is_all, &published, PATIENCE_MS));
    assert_true(test_wait(is_all, &handled, PATIENCE_MS));
    event_bus_unsubscribe(s);
    event_bus_destroy(bus);
    test_nats_stop(&server);
    test_dir_remove(identity.dir);
}

static void assert_refused(const struct event_bus_nats_options *options)
{
    struct event_bus *bus = NULL;
    struct wb_why why = {""};

    assert_err(event_bus_nats_create(options, true, &bus, &why), WB_UNREACHABLE);
    assert_non_null(strstr(why.text, "TLS"));
}

static void certificate_of_an_unknown_authority_is_refused(void **state)
{
    struct identity identity;
    struct identity other;
    struct test_nats server;

    (void)state;
    make_identity(&identity);
    make_identity(&other);
    test_nats_start(&server, &(struct test_nats_options){.conf = identity.conf});
    assert_refused(&(struct event_bus_nats_options){.url = server.url, .tls_ca_file = other.cert});
    assert_refused(&(struct event_bus_nats_options){.url = server.url}); /* it insists on TLS */
    test_nats_stop(&server);
    test_dir_remove(identity.dir);
    test_dir_remove(other.dir);
}

static void tls_that_the_server_lacks_is_not_done_without(void **state)
{
    struct world *w = *state;
    char url[80];

    assert_refused(&(struct event_bus_nats_options){.url = w->server.url, .tls = true});
    (void)snprintf(url, sizeof(url), "tls://127.0.0.1:%u", w->server.port);
    assert_refused(&(struct event_bus_nats_options){.url = url});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_works_over_tls_under_load),
        cmocka_unit_test(certificate_of_an_unknown_authority_is_refused),
        cmocka_unit_test_setup_teardown(tls_that_the_server_lacks_is_not_done_without, setup,
                                        teardown),
    };
    return cmocka_run_group_tests_name("event_bus_nats tls", tests, NULL, NULL);
}
