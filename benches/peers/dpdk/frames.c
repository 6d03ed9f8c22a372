/* Frames, built outside of what is measured, drawn from a shuffled table at run time. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "peer.h"

#define TABLE 256
#define HUGE_PAGE (2u << 20)
/* What a full ring and the longest burst hold, and the pool's cache. */
#define SEGMENTS 2047
/* DPDK's cache for each thread, as testpmd has it (250), to the next power of two. */
#define CACHE 256
#define PAGES HUGE_PAGE

struct entry {
    uint16_t offset[MOST_FRAGMENTS]; /* in a page */
    uint16_t cut[MOST_FRAGMENTS];    /* what makes shares of the payload unequal */
    uint16_t length;                 /* of a frame of one segment */
    uint8_t kind;                    /* of headers and checksums, where that changes */
};

static struct entry table[TABLE];
static unsigned at;
static struct rte_mempool *segments;
static struct rte_mbuf_ext_shared_info *owners;
static uint8_t *pages;
static unsigned owner;
static uint64_t returned;

static void give_back(void *address, void *opaque) {
    (void)address;
    (*(uint64_t *)opaque)++;
}

/* xorshift64*: the same frames in every run with the same seed. */
static uint64_t state;
static uint32_t draw(uint32_t below) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1dULL) >> 32) % below;
}

/* Addresses for the device are those of the program, as everywhere here. */
static void set_address(struct rte_mempool *pool, void *opaque, void *object, unsigned index) {
    struct rte_mbuf *segment = object;
    (void)pool, (void)opaque, (void)index;
    rte_mbuf_iova_set(segment, (rte_iova_t)(uintptr_t)segment->buf_addr);
}

/* A pool on huge pages, as DPDK has it, without any that somebody has to reserve. DPDK believes that pages have
 * 4 KiB: only where that does not matter to it do segments follow each other closely. Else all would begin at the
 * same offset in a page and push each other out of the cache, which is not so in a program with huge pages. */
static void make_pool(void) {
    static unsigned number;
    struct rte_pktmbuf_pool_private private = {.mbuf_data_room_size = RTE_MBUF_DEFAULT_BUF_SIZE};
    unsigned size = sizeof(struct rte_mbuf) + RTE_MBUF_DEFAULT_BUF_SIZE;
    char name[16];
    size_t bytes;
    int taken;
    void *memory;
    snprintf(name, sizeof name, "segments%u", number++);
    segments = rte_mempool_create_empty(name, SEGMENTS, size, CACHE, sizeof private, 0,
                                        RTE_MEMPOOL_F_NO_IOVA_CONTIG);
    if (!segments || rte_mempool_set_ops_byname(segments, "ring_mp_mc", NULL) != 0) die("no pool of segments");
    rte_pktmbuf_pool_init(segments, &private);
    size = segments->header_size + segments->elt_size + segments->trailer_size;
    bytes = RTE_ALIGN_CEIL((size_t)(SEGMENTS + 1) * size, (size_t)HUGE_PAGE);
    memory = aligned_alloc(HUGE_PAGE, bytes);
    if (!memory) die("no memory for segments");
    madvise(memory, bytes, MADV_HUGEPAGE);
    taken = rte_mempool_populate_virt(segments, memory, bytes, HUGE_PAGE, NULL, NULL);
    if (taken != SEGMENTS) die("the pool has taken %d of %d segments", taken, SEGMENTS);
    rte_mempool_obj_iter(segments, rte_pktmbuf_init, NULL);
    rte_mempool_obj_iter(segments, set_address, NULL);
}

/* All segments are taken and given back in random order: neighbours in a frame are not neighbours in
 * memory, as after some time in any program. */
static void shuffle_segments(void) {
    struct rte_mbuf **all = calloc(SEGMENTS, sizeof *all);
    if (!all || rte_pktmbuf_alloc_bulk(segments, all, SEGMENTS) != 0) die("the pool lacks segments");
    for (unsigned i = SEGMENTS - 1; i > 0; i--) {
        unsigned other = draw(i + 1);
        struct rte_mbuf *kept = all[i];
        all[i] = all[other];
        all[other] = kept;
    }
    for (unsigned i = 0; i < SEGMENTS; i++) rte_pktmbuf_free_seg(all[i]);
    free(all);
}

void frames_start(unsigned seed) {
    state = 0x9e3779b97f4a7c15ULL ^ seed;
    at = owner = 0;
    if (!pages) pages = aligned_alloc(HUGE_PAGE, PAGES);
    free(owners);
    owners = calloc(SEGMENTS, sizeof *owners);
    if (!owners || !pages) die("no memory for frames");
    madvise(pages, PAGES, MADV_HUGEPAGE);
    memset(pages, 0x5a, PAGES);
    for (unsigned i = 0; i < SEGMENTS; i++) {
        owners[i].free_cb = give_back;
        owners[i].fcb_opaque = &returned;
    }
    for (unsigned i = 0; i < TABLE; i++) {
        table[i].length = (uint16_t)(HEADER + draw(PAYLOAD + 1));
        table[i].kind = (uint8_t)draw(4);
        for (unsigned j = 0; j < MOST_FRAGMENTS; j++) {
            table[i].offset[j] = (uint16_t)draw(64);
            table[i].cut[j] = (uint16_t)draw(32);
        }
    }
    make_pool();
    shuffle_segments();
}

/* One fragment of the payload: bytes of a segment of its own, or a piece of a program's page. */
static struct rte_mbuf *fragment(const struct entry *entry, unsigned index, uint16_t length, int external) {
    struct rte_mbuf *segment = rte_pktmbuf_alloc(segments);
    if (!segment) die("the pool of segments is empty");
    if (external) {
        struct rte_mbuf_ext_shared_info *info = &owners[owner++ % SEGMENTS];
        uint8_t *bytes = pages + (draw(PAGES / 4096 - 1) << 12) + entry->offset[index];
        rte_mbuf_ext_refcnt_set(info, 1);
        rte_pktmbuf_attach_extbuf(segment, bytes, (rte_iova_t)(uintptr_t)bytes, 2048, info);
        segment->data_off = 0;
    } else {
        segment->data_off = (uint16_t)(RTE_PKTMBUF_HEADROOM + entry->offset[index]);
    }
    segment->data_len = length;
    return segment;
}

static void ask(struct rte_mbuf *head, unsigned kind) {
    static const struct {
        uint64_t flags;
        uint8_t l3, l4;
    } kinds[] = {
        {RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM, 20, 32},
        {RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM, 24, 32},
        {RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_UDP_CKSUM, 20, 8},
        {RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_TCP_CKSUM, 40, 32},
    };
    head->ol_flags |= kinds[kind].flags;
    head->l2_len = 14;
    head->l3_len = kinds[kind].l3;
    head->l4_len = kinds[kind].l4;
}

static struct rte_mbuf *frame(const struct entry *entry, const struct shape *shape) {
    struct rte_mbuf *head = rte_pktmbuf_alloc(segments), *last = head;
    unsigned left = PAYLOAD;
    if (!head) die("the pool of segments is empty");
    head->data_len = shape->fragments ? HEADER : entry->length;
    head->pkt_len = shape->fragments ? HEADER + PAYLOAD : entry->length;
    for (unsigned i = 0; i < shape->fragments; i++) {
        /* About equal shares, none empty; the last takes the rest. */
        unsigned rest = shape->fragments - i;
        unsigned length = rest == 1 ? left : left / rest + entry->cut[i] - 16;
        last->next = fragment(entry, i, (uint16_t)length, shape->external);
        last = last->next;
        left -= length;
    }
    head->nb_segs = (uint16_t)(1 + shape->fragments);
    if (shape->asked != PLAIN) ask(head, shape->asked == CHANGING ? entry->kind : 0);
    return head;
}

void frames_build(struct rte_mbuf **frames, unsigned count, const struct shape *shape) {
    for (unsigned i = 0; i < count; i++) frames[i] = frame(&table[at++ % TABLE], shape);
}
