/* DPDK's e1000e, which is the part "em" of its driver e1000. */
#include "peer.h"

#include "base/e1000_api.h"
#include "e1000_ethdev.h"

void open_e1000e(struct queue *queue, const char *path, const struct shape *shape) {
    struct rte_eth_dev *device = new_device(sizeof(struct e1000_adapter));
    struct e1000_hw *hw = E1000_DEV_PRIVATE_TO_HW(device->data->dev_private);
    struct rte_eth_txconf conf = {
        .offloads = RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM |
                    RTE_ETH_TX_OFFLOAD_TCP_CKSUM,
    };
    (void)path;
    (void)shape;
    hw->mac.type = e1000_82574;
    hw->hw_addr = intel_registers();
    if (eth_em_tx_queue_setup(device, 0, RING, 0, &conf) != 0) die("em has made no queue");
    device->tx_pkt_burst = eth_em_xmit_pkts;
    intel_ready(queue, device, (void *)hw->hw_addr, E1000_TDT(0));
}
