#include "trash.h"

int event_bus_nats_trash_init(struct nats_trash *trash)
{
    trash->count = 0;
    trash->bytes = 0;
    return pthread_mutex_init(&trash->mutex, NULL);
}

static void destroy_all(natsMsg **messages, size_t count)
{
    for (size_t i = 0; i < count; i++)
        natsMsg_Destroy(messages[i]);
}

void event_bus_nats_trash_add(struct nats_trash *trash, natsMsg *msg)
{
    natsMsg *full[NATS_TRASH_MAX];
    size_t count = 0;

    if (msg == NULL)
        return;
    pthread_mutex_lock(&trash->mutex);
    trash->messages[trash->count++] = msg;
    trash->bytes += (size_t)natsMsg_GetDataLength(msg);
    if (trash->count == NATS_TRASH_MAX || trash->bytes > NATS_TRASH_BYTES) {
        for (; count < trash->count; count++)
            full[count] = trash->messages[count];
        trash->count = 0;
        trash->bytes = 0;
    }
    pthread_mutex_unlock(&trash->mutex);
    destroy_all(full, count);
}

void event_bus_nats_trash_free(struct nats_trash *trash)
{
    destroy_all(trash->messages, trash->count);
    pthread_mutex_destroy(&trash->mutex);
}
