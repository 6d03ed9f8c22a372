/* A BAR and a device of plain memory, as far as transmitting of Intel's NICs needs one. */
#include <stdlib.h>
#include <string.h>

#include "peer.h"

#define REGISTERS (128 << 10)

/* Descriptors of both kinds have 16 bytes. The command's Report Status is bit 27 of the third word, and
 * Descriptor Done, which the device writes where that was asked for, bit 0 of the fourth. */
static void complete(struct queue *queue) {
    volatile uint32_t *words = (volatile uint32_t *)queue->ring;
    unsigned tail = *(volatile uint32_t *)(queue->registers + queue->tail_register);
    for (; queue->next != tail; queue->next = (queue->next + 1) % RING)
        if (words[4 * queue->next + 2] & (1u << 27)) words[4 * queue->next + 3] |= 1;
}

void *intel_registers(void) {
    void *registers = aligned_alloc(4096, REGISTERS);
    if (!registers) die("no memory for a BAR");
    memset(registers, 0, REGISTERS);
    return registers;
}

void intel_ready(struct queue *queue, struct rte_eth_dev *device, void *registers, uint32_t tail_register) {
    char name[RTE_ETH_NAME_MAX_LEN];
    const struct rte_memzone *zone;
    snprintf(name, sizeof name, "eth_p%u_q0_tx_ring", device->data->port_id);
    zone = rte_memzone_lookup(name);
    if (!zone) die("DPDK has made no ring %s", name);
    *queue = (struct queue){
        .burst = device->tx_pkt_burst,
        .handle = device->data->tx_queues[0],
        .complete = complete,
        .ring = zone->addr,
        .registers = registers,
        .tail_register = tail_register,
    };
}
