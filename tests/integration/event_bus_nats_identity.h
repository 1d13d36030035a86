/* event_bus_nats_identity.h - a certificate for 127.0.0.1 that signs itself, for a server. */
#ifndef EVENT_BUS_NATS_IDENTITY_H
#define EVENT_BUS_NATS_IDENTITY_H

#include "test_support.h"

#include <stdio.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

static inline void add_extension(X509 *certificate, int id, const char *value)
{
    X509V3_CTX context;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, id, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static inline X509 *make_certificate(EVP_PKEY *key)
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

static inline void make_identity(struct identity *identity)
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

#endif /* EVENT_BUS_NATS_IDENTITY_H */
