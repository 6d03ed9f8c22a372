/* DPDK's virtio-net on a device of plain memory: split rings with direct and indirect descriptors, and
 * packed ones. The driver reaches its device through a table of functions, so it initialises itself. */
#include <stdlib.h>
#include <string.h>

#include "peer.h"

#include "virtio_ethdev.h"
#include "virtio.h"
#include "virtio_logs.h"
#include "virtqueue.h"
#include <rte_io.h>

/* The device. One at a time is in use. */
static uint64_t offered, agreed;
static uint16_t size;
static uint8_t status;
static uint16_t *doorbell;

static void read_config(struct virtio_hw *hw, size_t offset, void *into, int length) {
    static const uint8_t config[64] = {2, 0, 0, 0, 0, 1, 1};
    (void)hw;
    memset(into, 0, (size_t)length);
    if (offset + (size_t)length <= sizeof config) memcpy(into, config + offset, (size_t)length);
}
static void write_config(struct virtio_hw *hw, size_t offset, const void *from, int length) {
    (void)hw, (void)offset, (void)from, (void)length;
}
static uint8_t get_status(struct virtio_hw *hw) { (void)hw; return status; }
static void set_status(struct virtio_hw *hw, uint8_t value) { (void)hw; status = value; }
static uint64_t get_features(struct virtio_hw *hw) { (void)hw; return offered; }
static void set_features(struct virtio_hw *hw, uint64_t features) { (void)hw; agreed = features; }
static int features_ok(struct virtio_hw *hw) { (void)hw; return 0; }
static uint8_t get_isr(struct virtio_hw *hw) { (void)hw; return 0; }
static uint16_t set_config_irq(struct virtio_hw *hw, uint16_t vector) { (void)hw; return vector; }
static uint16_t set_queue_irq(struct virtio_hw *hw, struct virtqueue *vq, uint16_t vector) {
    (void)hw, (void)vq;
    return vector;
}
static uint16_t get_queue_num(struct virtio_hw *hw, uint16_t queue) { (void)hw, (void)queue; return size; }
static int setup_queue(struct virtio_hw *hw, struct virtqueue *vq) {
    (void)hw;
    vq->notify_addr = doorbell + vq->vq_queue_index;
    return 0;
}
static void del_queue(struct virtio_hw *hw, struct virtqueue *vq) { (void)hw, (void)vq; }
/* As the driver's own for PCI writes it, where the device has no use for more than the queue's number. */
static void notify_queue(struct virtio_hw *hw, struct virtqueue *vq) {
    (void)hw;
    rte_write16(vq->vq_queue_index, vq->notify_addr);
}
static int dev_close(struct virtio_hw *hw) { (void)hw; return 0; }

static const struct virtio_ops device_of_memory = {
    .read_dev_cfg = read_config,
    .write_dev_cfg = write_config,
    .get_status = get_status,
    .set_status = set_status,
    .get_features = get_features,
    .set_features = set_features,
    .features_ok = features_ok,
    .get_isr = get_isr,
    .set_config_irq = set_config_irq,
    .set_queue_irq = set_queue_irq,
    .get_queue_num = get_queue_num,
    .setup_queue = setup_queue,
    .del_queue = del_queue,
    .notify_queue = notify_queue,
    .dev_close = dev_close,
};

/* Every chain that is available is used, in order. */
static void complete_split(struct queue *queue) {
    struct virtqueue *vq = queue->internal;
    struct vring *ring = &vq->vq_split.ring;
    unsigned size = vq->vq_nentries;
    uint16_t available = ring->avail->idx, next = (uint16_t)queue->next;
    for (; next != available; next++) {
        ring->used->ring[next % size].id = ring->avail->ring[next % size];
        ring->used->ring[next % size].len = 0;
    }
    queue->next = next;
    ring->used->idx = next;
}

static void complete_packed(struct queue *queue) {
    struct virtqueue *vq = queue->internal;
    struct vring_packed_desc *ring = vq->vq_packed.ring.desc;
    unsigned size = vq->vq_nentries;
    for (;;) {
        unsigned first = queue->next, last = first, length = 1;
        uint16_t flags = ring[first].flags;
        int wrap = queue->wrap;
        if (!!(flags & VRING_PACKED_DESC_F_AVAIL) != wrap || !!(flags & VRING_PACKED_DESC_F_USED) == wrap)
            return;
        for (; ring[last].flags & VRING_DESC_F_NEXT; length++) last = (last + 1) % size;
        /* The last descriptor of a chain has its number. */
        ring[first].id = ring[last].id;
        ring[first].len = 0;
        ring[first].flags = wrap ? VRING_PACKED_DESC_F_AVAIL_USED : 0;
        queue->next += length;
        if (queue->next >= size) {
            queue->next -= size;
            queue->wrap = !wrap;
        }
    }
}

static void must(int status_of_call, const char *call) {
    if (status_of_call != 0) die("virtio: %s: %s", call, rte_strerror(-status_of_call));
}

void open_virtio(struct queue *queue, const char *path, const struct shape *shape) {
    struct rte_eth_dev *device = new_device(sizeof(struct virtio_hw));
    struct virtio_hw *hw = device->data->dev_private;
    int packed = strncmp(path, "packed", 6) == 0, indirect = strstr(path, "indirect") != NULL;
    struct rte_eth_conf conf = {0};
    static struct rte_mempool *received;
    uint16_t port = device->data->port_id;
    offered = 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_NET_F_MAC | 1ULL << VIRTIO_NET_F_CSUM |
              1ULL << VIRTIO_NET_F_MRG_RXBUF;
    if (packed) offered |= 1ULL << VIRTIO_F_RING_PACKED;
    if (indirect) offered |= 1ULL << VIRTIO_RING_F_INDIRECT_DESC;
    /* A descriptor holds a frame: QEMU's default, or four times as many frames would be in flight as with
     * direct descriptors and overflow the cache. */
    size = indirect ? 256 : RING;
    if (!doorbell) doorbell = aligned_alloc(4096, 4096);
    if (!received) received = rte_pktmbuf_pool_create("received", 4095, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
    if (!doorbell || !received) die("no memory for a device");
    hw->port_id = port;
    VIRTIO_OPS(hw) = &device_of_memory;
    must(eth_virtio_dev_init(device), "initialisation");
    device->state = RTE_ETH_DEV_ATTACHED;
    conf.txmode.offloads = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    if (shape->asked != PLAIN) conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
    must(rte_eth_dev_configure(port, 1, 1, &conf), "configuration");
    must(rte_eth_rx_queue_setup(port, 0, size, 0, NULL, received), "receive queue");
    must(rte_eth_tx_queue_setup(port, 0, size, 0, NULL), "transmit queue");
    must(rte_eth_dev_start(port), "start");
    if (device->tx_pkt_burst != (packed ? virtio_xmit_pkts_packed : virtio_xmit_pkts))
        die("virtio has chosen another function than that of its path \"%s\"", path);
    *queue = (struct queue){
        .burst = device->tx_pkt_burst,
        .handle = device->data->tx_queues[0],
        .complete = packed ? complete_packed : complete_split,
        .wrap = 1,
        .internal = virtnet_txq_to_vq(device->data->tx_queues[0]),
    };
}
