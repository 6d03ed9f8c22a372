/* Linux's TCP between two network namespaces: both ends, and the switches of an interface.
 *
 *   traffic receive ADDRESS CPU              accepts one connection, reads it to its end
 *   traffic send ADDRESS CPU HOW SIZE BYTES  HOW is write or sendfile, SIZE bytes a call
 *   traffic offload INTERFACE TSO GSO        on or off
 *
 * "send" prints what the process has spent, a line of JSON without its braces. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT 9000
/* What is sent, over and over: more than the caches near a core hold. */
#define SOURCE (16 << 20)

static void die(const char *what) {
    fprintf(stderr, "traffic: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void pin(const char *cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(atoi(cpu), &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) die("pinning to a CPU");
}

static struct sockaddr_in address(const char *text) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1) die(text);
    return address;
}

static void receive(const char *at) {
    static char buffer[256 << 10];
    struct sockaddr_in here = address(at);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), connection;
    ssize_t got;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&here, sizeof here) != 0 || listen(listener, 1) != 0) die("listening");
    puts("listening");
    fflush(stdout);
    connection = accept(listener, NULL, NULL);
    if (connection < 0) die("accepting");
    while ((got = read(connection, buffer, sizeof buffer)) > 0) {}
    if (got < 0) die("receiving");
}

static double seconds(struct timeval time) { return (double)time.tv_sec + (double)time.tv_usec / 1e6; }

static void send_all(const char *to, const char *how, size_t size, size_t bytes) {
    struct sockaddr_in there = address(to);
    int connection = socket(AF_INET, SOCK_STREAM, 0), file = memfd_create("source", 0);
    int from_file = strcmp(how, "sendfile") == 0;
    char *source, rest;
    struct rusage before, after;
    struct timespec begun, ended;
    double gigabytes = (double)bytes / 1e9;
    if (file < 0 || ftruncate(file, SOURCE) != 0) die("a file in memory");
    source = mmap(NULL, SOURCE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (source == MAP_FAILED) die("mapping it");
    memset(source, 0x5a, SOURCE);
    if (connect(connection, (void *)&there, sizeof there) != 0) die("connecting");
    getrusage(RUSAGE_SELF, &before);
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (size_t sent = 0; sent < bytes;) {
        size_t start = sent % SOURCE, left = SOURCE - start, length = left < size ? left : size;
        off_t offset = (off_t)start;
        ssize_t done = from_file ? sendfile(connection, file, &offset, length) : write(connection, source + start, length);
        if (done <= 0) die("sending");
        sent += (size_t)done;
    }
    shutdown(connection, SHUT_WR);
    /* The other side closes when it has read all. */
    if (read(connection, &rest, 1) != 0) die("waiting for the end");
    clock_gettime(CLOCK_MONOTONIC, &ended);
    getrusage(RUSAGE_SELF, &after);
    printf("\"user_seconds_per_gb\": %.3f, \"system_seconds_per_gb\": %.3f, \"elapsed_seconds_per_gb\": %.3f\n",
           (seconds(after.ru_utime) - seconds(before.ru_utime)) / gigabytes,
           (seconds(after.ru_stime) - seconds(before.ru_stime)) / gigabytes,
           ((double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9) / gigabytes);
}

static void set(const char *interface, uint32_t command, const char *value) {
    struct ethtool_value wanted = {.cmd = command, .data = strcmp(value, "on") == 0};
    struct ifreq request = {0};
    int any = socket(AF_INET, SOCK_DGRAM, 0);
    strncpy(request.ifr_name, interface, sizeof request.ifr_name - 1);
    request.ifr_data = (void *)&wanted;
    if (ioctl(any, SIOCETHTOOL, &request) != 0) die(interface);
    close(any);
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "receive") == 0) {
        pin(argv[3]);
        receive(argv[2]);
    } else if (argc == 7 && strcmp(argv[1], "send") == 0) {
        pin(argv[3]);
        send_all(argv[2], argv[4], strtoul(argv[5], NULL, 10), strtoul(argv[6], NULL, 10));
    } else if (argc == 5 && strcmp(argv[1], "offload") == 0) {
        set(argv[2], ETHTOOL_STSO, argv[3]);
        set(argv[2], ETHTOOL_SGSO, argv[4]);
    } else {
        fputs("traffic: see the first lines of its source\n", stderr);
        return 2;
    }
    return 0;
}
