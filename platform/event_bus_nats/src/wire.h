/*
 * wire.h - the socket of one connection: who writes it, who reads it, and whether the peer lives.
 *
 * nats.c by itself either writes each message alone or sleeps a millisecond before it writes. Here
 * it only fills and empties its buffers (what it calls an external event loop): who sends, writes
 * at once, and leaves that to the wire's reader when messages come so fast that many fit into one
 * write, or when the socket takes no more. So no send waits for the peer. Over TLS one may: nats.c
 * writes whole records, for as long as its write deadline, and reads whole ones, meanwhile nobody
 * writes.
 *
 * nats.c closes the socket where reading or writing fails, and reads it without a lock. So one
 * thread at a time is at the socket, and nats.c's timer, which closes too, is off: the wire pings.
 * Others end a connection by shutting the socket down, which the thread at the socket finds.
 *
 * Threads   Two of its own for each connection, a reader and a pinger. sending and sent: any;
 *           the others: the one that connects.
 */
#ifndef EVENT_BUS_NATS_WIRE_H
#define EVENT_BUS_NATS_WIRE_H

#include <pthread.h>
#include <stdatomic.h>

#include <nats/nats.h>

#include <waybill/base.h>

#define NATS_WIRE_PING_MAX_NS (3600 * WB_SEC)

enum nats_wire_mode {
    NATS_WIRE_DIRECT, /* who sends, writes */
    NATS_WIRE_STREAM, /* the reader writes, each millisecond */
    NATS_WIRE_FULL    /* the reader writes, as soon as the socket takes something */
};

enum nats_wire_state {
    NATS_WIRE_OPEN,
    NATS_WIRE_SHUT, /* shut down: the reader finds its end and has nats.c close it */
    NATS_WIRE_ENDED /* nats.c closes the socket, or has done so */
};

struct nats_wire {
    int64_t ping_ns;    /* constant: between two pings, and until one is answered */
    int wake_fd;        /* constant: an eventfd, on which the reader waits as well */
    natsConnection *nc; /* constant while the threads run, as the next one */
    int fd;
    pthread_t reader, pinger;
    bool running; /* the threads are to be joined */

    /*
     * nats.c holds something that is to be written. Changes under nats.c's lock: true when it tells
     * of something to write, false when all is written, which only who has the turn does. It tells
     * once, so somebody must write it then: a sender, or the reader.
     */
    atomic_bool unwritten;
    atomic_uint senders;  /* calls that will see to it that what they send is written */
    atomic_bool urgent;   /* the reader is to write at once */
    pthread_mutex_t turn; /* of the thread at the socket; taken before nats.c's locks */

    pthread_mutex_t mutex;  /* guards all below; taken within nats.c's locks */
    pthread_cond_t changed; /* the state */
    enum nats_wire_state state;
    enum nats_wire_mode mode;
    int64_t batch_ns;     /* when the present batch began */
    unsigned batch_count; /* sends since then */
};

/** ping_ns is cut to NATS_WIRE_PING_MAX_NS. WB_NOMEM, WB_IO. */
wb_err event_bus_nats_wire_init(struct nats_wire *wire, int64_t ping_ns);
void event_bus_nats_wire_fini(struct nats_wire *wire);

/** Connections with these options use the wire, one at a time: each ends for good. */
natsStatus event_bus_nats_wire_set_options(struct nats_wire *wire, natsOptions *options);
/** Close the connection, if it is open, without waiting for the peer; end the threads. */
void event_bus_nats_wire_close(struct nats_wire *wire);

/** Around a call of nats.c that sends and does not wait. What other calls send leaves anyhow. */
void event_bus_nats_wire_sending(struct nats_wire *wire);
void event_bus_nats_wire_sent(struct nats_wire *wire);

#endif /* EVENT_BUS_NATS_WIRE_H */
