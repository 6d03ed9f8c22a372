/* DPDK's ixgbe: its full, simple and vector path. */
#include "peer.h"

#include "base/ixgbe_type.h"
#include "base/ixgbe_api.h"
#include "ixgbe_ethdev.h"
#include "ixgbe_rxtx.h"
#include <rte_vect.h>

void open_ixgbe(struct queue *queue, const char *path, const struct shape *shape) {
    struct rte_eth_dev *device = new_device(sizeof(struct ixgbe_adapter));
    struct ixgbe_hw *hw = IXGBE_DEV_PRIVATE_TO_HW(device->data->dev_private);
    struct rte_eth_txconf conf = {0};
    int full = strcmp(path, "full") == 0, simple = strcmp(path, "simple") == 0;
    (void)shape;
    hw->mac.type = ixgbe_mac_82599EB;
    hw->hw_addr = intel_registers();
    if (full) {
        conf.offloads = RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM |
                        RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
    }
    /* Where SSE may not be used DPDK takes the simple path instead of the vector path. */
    rte_vect_set_max_simd_bitwidth(simple ? RTE_VECT_SIMD_DISABLED : RTE_VECT_SIMD_128);
    if (ixgbe_dev_tx_queue_setup(device, 0, RING, 0, &conf) != 0) die("ixgbe has made no queue");
    /* The vector path's function is private to its file: it is none of the two others. */
    if ((device->tx_pkt_burst == ixgbe_xmit_pkts) != full || (device->tx_pkt_burst == ixgbe_xmit_pkts_simple) != simple)
        die("ixgbe has chosen another function than that of its %s path", path);
    intel_ready(queue, device, (void *)hw->hw_addr, IXGBE_TDT(0));
}
