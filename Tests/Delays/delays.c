/* A library for LD_PRELOAD that makes a server wait at its calls on the device: pread, pwrite and fdatasync.
 *
 * It drops nothing and changes nothing, neither bytes nor results: what comes to light under it can happen without it, on a
 * disk that is slow at the wrong moment. Only regular files and block devices are a device; calls on anything else go
 * straight through.
 *
 * At random: where LACUNA_DELAYS_SEED is set, a share of all calls (LACUNA_DELAYS_SHARE, of 1000) waits before or after, or
 * both, up to LACUNA_DELAYS_LONGEST microseconds; where LACUNA_DELAYS_KINDS is set, only calls of these kinds. Most waits are short: each power of two is as likely as any other.
 *
 * As told: LACUNA_DELAYS_CONTROL names a file that the test maps too (library.py). It has rules; the next call that fits one
 * waits until the rule is released, or for as long as it says.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum kind { KIND_READ = 1, KIND_WRITE = 2, KIND_SYNC = 4 };
enum moment { BEFORE = 0, AFTER = 1 };
enum { RULE_COUNT = 16 };

/* One rule: 10 numbers of 8 bytes, in the order in which library.py has them. */
struct rule {
  _Atomic int64_t left;     /* how many calls more it stops; written last by the test, and 0 where the rule is not in use */
  int64_t kinds;            /* a sum of enum kind */
  int64_t moment;
  int64_t size;             /* the bytes of the call, or -1 for any number */
  int64_t first;            /* the call's first byte lies from here ... */
  int64_t end;              /* ... to here, exclusively; -1 for no end */
  int64_t milliseconds;     /* the longest wait */
  _Atomic int64_t released; /* not 0: nobody waits any more */
  _Atomic int64_t hits;     /* how many calls it has stopped */
  _Atomic int64_t waiting;  /* how many of them wait now */
};

struct control {
  _Atomic int64_t calls[8]; /* how many calls there have been, by kind */
  struct rule rules[RULE_COUNT];
};

static struct control *control;
static uint64_t seed;
static uint64_t share, longest, random_kinds;
static _Atomic uint64_t call_number;

static ssize_t (*real_pread)(int, void *, size_t, off64_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_fdatasync)(int);

static void give_up(const char *what) {
  fprintf(stderr, "delays: %s\n", what);
  _exit(99);
}

static void *real(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  if (!found) give_up(name);
  return found;
}

static uint64_t number(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

__attribute__((constructor)) static void begin(void) {
  real_pread = real("pread64");
  real_pwrite = real("pwrite64");
  real_fdatasync = real("fdatasync");
  if (getenv("LACUNA_DELAYS_SEED")) {
    seed = number("LACUNA_DELAYS_SEED", 0);
    share = number("LACUNA_DELAYS_SHARE", 100);
    longest = number("LACUNA_DELAYS_LONGEST", 20000);
    random_kinds = number("LACUNA_DELAYS_KINDS", KIND_READ | KIND_WRITE | KIND_SYNC);
  }
  const char *path = getenv("LACUNA_DELAYS_CONTROL");
  if (!path) return;
  int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) give_up("the file of LACUNA_DELAYS_CONTROL cannot be opened");
  struct control *mapped = mmap(NULL, sizeof *mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) give_up("the file of LACUNA_DELAYS_CONTROL cannot be mapped");
  close(file);
  control = mapped;
}

/* Whether a descriptor is a device. Answered anew for each call, since numbers are used again. */
static int is_device(int descriptor) {
  struct stat status;
  return fstat(descriptor, &status) == 0 && (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode));
}

static void wait_microseconds(uint64_t count) {
  struct timespec left = {(time_t)(count / 1000000), (long)(count % 1000000) * 1000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

static uint64_t now_milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The next number of a sequence that the seed decides (splitmix64); which call gets which is for the scheduler to say. */
static uint64_t next_random(void) {
  uint64_t value = seed + 0x9E3779B97F4A7C15u * (atomic_fetch_add(&call_number, 1) + 1);
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

static void wait_at_random(void) {
  uint64_t random = next_random();
  if (random % 1000 >= share) return;
  random /= 1000;
  unsigned powers = 0;
  while (powers < 40 && longest >> powers > 1) powers++;
  uint64_t most = powers ? (uint64_t)2 << (random % powers) : 1;
  uint64_t count = 1 + (random >> 8) % most;
  wait_microseconds(count < longest ? count : longest);
}

static int fits(const struct rule *rule, int kind, int moment, int64_t size, int64_t offset) {
  return (rule->kinds & kind) && rule->moment == moment && (rule->size < 0 || rule->size == size)
    && (kind == KIND_SYNC || (offset >= rule->first && (rule->end < 0 || offset < rule->end)));
}

static void wait_as_told(int kind, int moment, int64_t size, int64_t offset) {
  for (int index = 0; index < RULE_COUNT; index++) {
    struct rule *rule = &control->rules[index];
    int64_t left = atomic_load(&rule->left);
    if (left <= 0 || !fits(rule, kind, moment, size, offset)) continue;
    while (left > 0 && !atomic_compare_exchange_weak(&rule->left, &left, left - 1)) {
    }
    if (left <= 0) continue;
    uint64_t end = now_milliseconds() + (uint64_t)rule->milliseconds;
    atomic_fetch_add(&rule->waiting, 1);
    atomic_fetch_add(&rule->hits, 1);
    while (!atomic_load(&rule->released) && now_milliseconds() < end) wait_microseconds(300);
    atomic_fetch_sub(&rule->waiting, 1);
    return; /* The next rule, which may be new, is for another call. */
  }
}

static void stop_at(int moment, int kind, int64_t size, int64_t offset) {
  int number = errno;
  if (control) {
    if (moment == BEFORE) atomic_fetch_add(&control->calls[kind], 1);
    wait_as_told(kind, moment, size, offset);
  }
  if (share && random_kinds & (uint64_t)kind) wait_at_random();
  errno = number;
}

static int is_watched(int descriptor) { return (control || share) && is_device(descriptor); }

ssize_t pread64(int descriptor, void *buffer, size_t count, off64_t offset) {
  if (!is_watched(descriptor)) return real_pread(descriptor, buffer, count, offset);
  stop_at(BEFORE, KIND_READ, (int64_t)count, offset);
  ssize_t result = real_pread(descriptor, buffer, count, offset);
  stop_at(AFTER, KIND_READ, (int64_t)count, offset);
  return result;
}

ssize_t pwrite64(int descriptor, const void *buffer, size_t count, off64_t offset) {
  if (!is_watched(descriptor)) return real_pwrite(descriptor, buffer, count, offset);
  stop_at(BEFORE, KIND_WRITE, (int64_t)count, offset);
  ssize_t result = real_pwrite(descriptor, buffer, count, offset);
  stop_at(AFTER, KIND_WRITE, (int64_t)count, offset);
  return result;
}

/* off_t has 64 bits where this is built; see the assertion. */
_Static_assert(sizeof(off_t) == sizeof(off64_t), "pread and pread64 must be the same call");
ssize_t pread(int descriptor, void *buffer, size_t count, off_t offset) {
  return pread64(descriptor, buffer, count, offset);
}
ssize_t pwrite(int descriptor, const void *buffer, size_t count, off_t offset) {
  return pwrite64(descriptor, buffer, count, offset);
}

int fdatasync(int descriptor) {
  if (!is_watched(descriptor)) return real_fdatasync(descriptor);
  stop_at(BEFORE, KIND_SYNC, 0, 0);
  int result = real_fdatasync(descriptor);
  stop_at(AFTER, KIND_SYNC, 0, 0);
  return result;
}
