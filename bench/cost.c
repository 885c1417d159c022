// Runs a command on one cpu and prints as its last line what it cost:
//
//   cost CPU COMMAND...      exit code, CPU seconds, wall seconds, peak resident bytes, CLOCK_MONOTONIC at its start in ns
//
// A small process has to do this, since the kernel counts the memory of whoever starts a process as that process's too.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(atoi(argv[1]), &cpus);
  sched_setaffinity(0, sizeof cpus, &cpus);
  long long began = now_ns();
  pid_t child = fork();
  if (!child) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    _exit(127);
  }
  int status;
  struct rusage used;
  wait4(child, &status, 0, &used);
  double cpu_s = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  printf("\n%d %.6f %.6f %lld %lld\n", code, cpu_s, (now_ns() - began) / 1e9, used.ru_maxrss * 1024ll, began);
  return 0;
}
