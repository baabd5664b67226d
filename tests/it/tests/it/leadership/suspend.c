/* Makes a process that is stopped feel as if its machine had been suspended: for as long as it stood
 * still, its monotonic clock did too, while the clock since boot and the wall clock went on. Preloaded into
 * a replica by suspend.rs, which writes into the file how long that was.
 *
 * Only what asks the C library is told this time: std's Instant, and with it every timer of the runtime. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Nanoseconds. */
static const volatile int64_t *slept;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("MENDIX_IT_SLEPT");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *page = mmap(NULL, sizeof *slept, PROT_READ, MAP_SHARED, file, 0);
  if (page != MAP_FAILED) slept = page;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  long failed = syscall(SYS_clock_gettime, clock, time);
  if (!failed && clock == CLOCK_MONOTONIC && slept) {
    int64_t now = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec - *slept;
    time->tv_sec = now / 1000000000;
    time->tv_nsec = now % 1000000000;
  }
  return (int)failed;
}
