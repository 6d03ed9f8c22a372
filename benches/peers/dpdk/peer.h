/* DPDK's transmit functions on a fake device: what the files of this folder share. */
#ifndef PEER_H
#define PEER_H

#include <stdint.h>
#include <rte_mbuf.h>
#include <ethdev_driver.h>

/* As in testpmd, whose default is this too. */
#define RING 1024
#define HEADER 66
#define PAYLOAD 1448
#define MOST_FRAGMENTS 16

/* What is asked of the device: nothing, the IPv4 and the TCP checksum, or one of four kinds of checksums and
 * headers, drawn for each frame. */
enum asked { PLAIN, CHECKSUM, CHANGING };

/* The frames of one case. */
struct shape {
    unsigned fragments; /* behind the header; 0: all bytes are in one segment */
    enum asked asked;
    int external; /* the fragments are external buffers, as a program's own pages would be */
};

/* A transmit queue whose device is plain memory. */
struct queue {
    eth_tx_burst_t burst;
    void *handle;
    /* Does what the device does: all that was posted is done. Not measured. */
    void (*complete)(struct queue *);

    /* What `complete` works on. */
    volatile uint8_t *ring;
    volatile uint8_t *registers;
    uint32_t tail_register;
    unsigned next;
    int wrap;
    void *internal;
};

/* Drivers. Each call makes a new device. They end the program if DPDK refuses anything. */
void open_ixgbe(struct queue *, const char *path, const struct shape *);
void open_e1000e(struct queue *, const char *path, const struct shape *);
void open_virtio(struct queue *, const char *path, const struct shape *);

/* What both of Intel's have in common: a BAR, and a queue once the driver has made it. */
void *intel_registers(void);
void intel_ready(struct queue *, struct rte_eth_dev *, void *registers, uint32_t tail_register);

/* A device as DPDK's bus would have found it, with driver data of this size. */
struct rte_eth_dev *new_device(size_t private_size);

/* Frames, from a table of this seed and a new pool of segments. */
void frames_start(unsigned seed);
void frames_build(struct rte_mbuf **frames, unsigned count, const struct shape *);

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

#endif
