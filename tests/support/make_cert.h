/* SPDX-License-Identifier: Apache-2.0
 *
 * make_cert.h - a certificate of our own for 127.0.0.1 and localhost, signed by itself, good from `from_s` to
 * `to_s` seconds from now, with its key, as two PEM files. false: libcrypto refused. */
#ifndef SQ_TEST_MAKE_CERT_H
#define SQ_TEST_MAKE_CERT_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>

static inline bool make_cert_add(X509 *x, int nid, const char *value) {
    X509V3_CTX c;
    X509V3_set_ctx_nodb(&c);
    X509V3_set_ctx(&c, x, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &c, nid, value);
    const bool ok = e && X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    return ok;
}

static inline bool make_cert(const char *cert, const char *key, long from_s, long to_s) {
    EVP_PKEY *k = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    FILE *f = fopen(cert, "wb"), *g = fopen(key, "wb");
    bool ok = k && x && f && g && X509_set_version(x, 2) && ASN1_INTEGER_set(X509_get_serialNumber(x), 1) &&
              X509_gmtime_adj(X509_getm_notBefore(x), from_s) &&
              X509_gmtime_adj(X509_getm_notAfter(x), to_s) && X509_set_pubkey(x, k) &&
              X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                                         (const unsigned char *)"squish test", -1, -1, 0) &&
              X509_set_issuer_name(x, X509_get_subject_name(x)) &&
              make_cert_add(x, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1") &&
              make_cert_add(x, NID_basic_constraints, "critical,CA:TRUE") && X509_sign(x, k, EVP_sha256()) &&
              PEM_write_X509(f, x) && PEM_write_PrivateKey(g, k, NULL, NULL, 0, NULL, NULL);
    ok = f && fclose(f) == 0 && ok;
    ok = g && fclose(g) == 0 && ok;
    X509_free(x);
    EVP_PKEY_free(k);
    return ok;
}

#endif
