/*
 * test_proxy.h - bad weather between a client and a server on loopback: a TCP proxy that delays,
 * chops, throttles, swallows and cuts what goes through it.
 *
 * Threads   One of its own. Any thread may change the weather.
 */
#ifndef TEST_PROXY_H
#define TEST_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_proxy;

/* All zero: the sun shines. */
struct test_proxy_weather {
    int64_t delay_ns;    /* each way */
    size_t piece;        /* bytes handed on at once; 0: as they come */
    uint64_t rate;       /* bytes per second, each way; 0: any */
    bool deaf_to_client; /* nothing of the client's is taken any more */
    bool deaf_to_server; /* nothing of the server's */
    bool refuse;         /* new connections are reset */
};

/** Listen on a free port of 127.0.0.1 and connect each client to to_port. Fails the test. */
void test_proxy_start(uint16_t to_port, struct test_proxy **ret_proxy);
uint16_t test_proxy_port(const struct test_proxy *proxy);

void test_proxy_set(struct test_proxy *proxy, const struct test_proxy_weather *weather);
/** Reset all connections, on both sides. */
void test_proxy_reset(struct test_proxy *proxy);
/** The server's side of all connections ends; the clients are not told. */
void test_proxy_half_open(struct test_proxy *proxy);

/** Cut all, end the thread, free. NULL does nothing. */
void test_proxy_stop(struct test_proxy *proxy);

#endif /* TEST_PROXY_H */
