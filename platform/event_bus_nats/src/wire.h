/*
 * wire.h - the socket of one connection: who writes it, who reads it, and whether the peer lives.
 *
 * nats.c by itself either writes each message alone or sleeps a millisecond before it writes. Here
 * it only fills and empties its buffers (what it calls an external event loop): who sends, writes
 * at once, and leaves that to the wire's reader when messages come so fast that many fit into one
 * write, or when the socket takes no more. So no send waits for the peer, but over TLS.
 *
 * nats.c closes the socket where reading or writing fails, and reads it without a lock. So one
 * thread at a time is at the socket, and nats.c's timer, which closes too, is off: the wire pings.
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

enum nats_wire_mode {
    NATS_WIRE_DIRECT, /* who sends, writes */
    NATS_WIRE_STREAM, /* the reader writes, each millisecond */
    NATS_WIRE_FULL    /* the reader writes, when the socket takes more */
};

struct nats_wire {
    int64_t ping_ns; /* constant: between two pings; who does not answer within two more is dead */
    int wake_fd;     /* constant: an eventfd, on which the reader waits as well */
    natsConnection *nc; /* constant while the threads run, as the next one */
    int fd;
    pthread_t reader, pinger;
    bool running; /* the threads are to be joined */

    atomic_uint senders;   /* calls that will see to it that what they send is written */
    atomic_bool unwritten; /* nats.c holds something that is to be written */
    atomic_bool urgent;    /* the reader is to write at once */
    pthread_mutex_t turn;  /* of the thread at the socket; taken before nats.c's locks */

    pthread_mutex_t mutex;  /* guards all below; taken within nats.c's locks */
    pthread_cond_t changed; /* closing, ended */
    bool closing;           /* the reader is to close the connection */
    bool ended;             /* it is closed */
    enum nats_wire_mode mode;
    int64_t batch_ns;     /* when the present batch began */
    unsigned batch_count; /* sends since then */
};

/** WB_NOMEM, WB_IO. */
wb_err event_bus_nats_wire_init(struct nats_wire *wire, int64_t ping_ns);
void event_bus_nats_wire_fini(struct nats_wire *wire);

/** Connections with these options use the wire, one at a time. */
natsStatus event_bus_nats_wire_set_options(struct nats_wire *wire, natsOptions *options);
/** Close the connection, if it is open, without waiting for the peer; end the threads. */
void event_bus_nats_wire_close(struct nats_wire *wire);

/** Around a call of nats.c that sends and does not wait. What other calls send leaves anyhow. */
void event_bus_nats_wire_sending(struct nats_wire *wire);
void event_bus_nats_wire_sent(struct nats_wire *wire);

#endif /* EVENT_BUS_NATS_WIRE_H */
