/* What DPDK's transmit functions cost, per frame: enqueue and reclaim, on a fake device.
 *
 *   peer time    nanoseconds, the median of many rounds
 *   peer count   for callgrind: it collects in `measured` alone and dumps after `case_over`
 *
 * A line of JSON for each case; "count" says how many frames callgrind
 * has seen instead of a time. The names of cases are those of the command "frames" of this package. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_malloc.h>

#include "peer.h"

/* Frames of a run by the clock, and runs, of which the median is taken. */
#define TIMED 4096
#define RUNS 15
/* Frames between two looks at the clock: the longest burst. */
#define WINDOW 32
/* Frames that are counted, and before. */
#define COUNTED 2048
#define WARM 2048

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("peer: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

struct rte_eth_dev *new_device(size_t private_size) {
    static unsigned number;
    static const struct rte_driver driver = {.name = "memory"};
    static struct rte_device parent = {.name = "memory", .driver = &driver};
    char name[16];
    struct rte_eth_dev *device;
    snprintf(name, sizeof name, "memory%u", number++);
    device = rte_eth_dev_allocate(name);
    if (!device) die("DPDK takes no further device");
    device->device = &parent;
    device->data->dev_private = rte_zmalloc(name, private_size, RTE_CACHE_LINE_SIZE);
    device->data->tx_queues = rte_zmalloc(name, sizeof(void *), RTE_CACHE_LINE_SIZE);
    device->data->nb_tx_queues = 1;
    if (!device->data->dev_private || !device->data->tx_queues) die("no memory for a device");
    return device;
}

/* A driver on one kind of device, by one of its paths. */
struct driver {
    const char *device, *layer;
    void (*open)(struct queue *, const char *path, const struct shape *);
    const char *path;
    int gathers, offloads, external;
};
static const struct driver drivers[] = {
    {"ixgbe", "dpdk-full", open_ixgbe, "full", 1, 1, 0},
    {"ixgbe", "dpdk-external", open_ixgbe, "full", 1, 1, 1},
    {"ixgbe", "dpdk-simple", open_ixgbe, "simple", 0, 0, 0},
    {"ixgbe", "dpdk-vector", open_ixgbe, "vector", 0, 0, 0},
    {"e1000e", "dpdk-full", open_e1000e, "full", 1, 1, 0},
    {"e1000e", "dpdk-external", open_e1000e, "full", 1, 1, 1},
    {"virtio-split-direct", "dpdk", open_virtio, "split-direct", 1, 1, 0},
    {"virtio-split-indirect", "dpdk", open_virtio, "split-indirect", 1, 1, 0},
    {"virtio-packed-direct", "dpdk", open_virtio, "packed-direct", 1, 1, 0},
    {"virtio-packed-indirect", "dpdk", open_virtio, "packed-indirect", 1, 1, 0},
};
static const unsigned fragment_counts[] = {0, 1, 2, 3, 4, 16};
static const unsigned bursts[] = {1, 32};
static const char *const asked_names[] = {"plain", "checksum", "changing"};

/* The only thing that is measured. */
__attribute__((noinline)) uint16_t measured(struct queue *queue, struct rte_mbuf **frames, uint16_t count) {
    return queue->burst(queue->handle, frames, count);
}
/* Tells callgrind that a case is over. */
__attribute__((noinline)) void case_over(void) { __asm__ volatile("" ::: "memory"); }

static int by_size(const void *left, const void *right) {
    double l = *(const double *)left, r = *(const double *)right;
    return (l > r) - (l < r);
}
static double median(double *values, unsigned count) {
    qsort(values, count, sizeof *values, by_size);
    return values[count / 2];
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* What looking at the clock costs by itself. */
static double clock_cost(void) {
    static double looks[10000];
    for (unsigned i = 0; i < RTE_DIM(looks); i++) {
        double begun = now();
        looks[i] = now() - begun;
    }
    return median(looks, RTE_DIM(looks));
}

/* Sends so many frames in bursts and says how many nanoseconds that took. Before every 32 frames the device has
 * done all that were sent, so that the driver finds what it may reclaim; that and building frames is not in the
 * time. */
static double transmit(struct queue *queue, const struct shape *shape, unsigned burst, unsigned count, double look) {
    struct rte_mbuf *frames[WINDOW];
    double sum = 0;
    for (unsigned sent = 0; sent < count; sent += WINDOW) {
        double begun, time;
        unsigned taken = 0;
        frames_build(frames, WINDOW, shape);
        queue->complete(queue);
        begun = now();
        for (unsigned i = 0; i < WINDOW; i += burst) taken += measured(queue, frames + i, (uint16_t)burst);
        time = now() - begun - look;
        if (taken != WINDOW) die("the driver has refused frames");
        sum += time > 0 ? time : 0;
    }
    return sum;
}

static double time_of(struct queue *queue, const struct shape *shape, unsigned burst) {
    double runs[RUNS], look = clock_cost();
    transmit(queue, shape, burst, TIMED, look);
    for (unsigned i = 0; i < RUNS; i++) runs[i] = transmit(queue, shape, burst, TIMED, look) / TIMED;
    return median(runs, RUNS);
}

static void one_case(const struct driver *driver, struct queue *queue, const struct shape *shape, unsigned burst,
                     int count) {
    char name[16] = "1";
    if (shape->fragments) snprintf(name, sizeof name, "h+%u", shape->fragments);
    printf("{\"case\": \"%s/%s/%s/%s/%u\", \"device\": \"%s\", \"layer\": \"%s\", \"fragments\": %u, "
           "\"asked\": \"%s\", \"burst\": %u, ",
           driver->device, driver->layer, name, asked_names[shape->asked], burst, driver->device, driver->layer,
           shape->fragments, asked_names[shape->asked], burst);
    if (count) {
        /* Once around the ring before anything counts: from then on every burst reclaims. */
        transmit(queue, shape, burst, WARM, 0);
        case_over();
        transmit(queue, shape, burst, COUNTED, 0);
        case_over();
        printf("\"frames\": %u}\n", COUNTED);
    } else {
        printf("\"nanoseconds\": %.2f}\n", time_of(queue, shape, burst));
    }
    fflush(stdout);
}

/* A queue and a pool for each thing asked: virtio settles at its start whether there are checksums. */
static void all_cases(const struct driver *driver, int count) {
    for (int asked = PLAIN; asked <= (driver->offloads ? CHANGING : PLAIN); asked++) {
        struct shape shape = {0, (enum asked)asked, driver->external};
        struct queue queue;
        driver->open(&queue, driver->path, &shape);
        frames_start(9);
        for (unsigned f = 0; f < RTE_DIM(fragment_counts); f++) {
            shape.fragments = fragment_counts[f];
            if (shape.fragments ? !driver->gathers : driver->external) continue;
            /* The driver's indirect tables have 8 descriptors; what is longer it sends as direct ones. */
            if (shape.fragments > 6 && strstr(driver->path, "indirect")) continue;
            for (unsigned b = 0; b < RTE_DIM(bursts); b++) one_case(driver, &queue, &shape, bursts[b], count);
        }
    }
}

int main(int argc, char **argv) {
    char *eal[] = {argv[0], "--no-huge", "-m", "256", "--no-shconf", "--no-pci", "--no-telemetry",
                   "--iova-mode=va", "--lcores=0", "--log-level=error"};
    int count = argc == 2 && strcmp(argv[1], "count") == 0;
    if (argc != 2 || (!count && strcmp(argv[1], "time") != 0)) die("say \"time\" or \"count\"");
    if (rte_eal_init(RTE_DIM(eal), eal) < 0) die("DPDK does not start: %s", rte_strerror(rte_errno));
    for (unsigned i = 0; i < RTE_DIM(drivers); i++) all_cases(&drivers[i], count);
    return 0;
}
