// How late the kernel wakes a thread that sleeps to instants: what no schedule on this machine can be better than.
//
//   lateness RATE JOBS      prints the lateness of each start in nanoseconds
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  long long rate = atoll(argv[1]), jobs = atoll(argv[2]), *late = malloc(jobs * sizeof *late);
  struct timespec start, at;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long long i = 0; i < jobs; i++) {
    long long due = start.tv_nsec + (i + 1) * 1000000000ll / rate;
    struct timespec until = {start.tv_sec + due / 1000000000, due % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    clock_gettime(CLOCK_MONOTONIC, &at);
    late[i] = (at.tv_sec - until.tv_sec) * 1000000000ll + at.tv_nsec - until.tv_nsec;
  }
  for (long long i = 0; i < jobs; i++) printf("%lld\n", late[i]);
}
