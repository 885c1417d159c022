// The limit: the least that a client of a ComfyUI server can cost, in C with epoll and one WebSocket for all jobs.
//
//   epoll SERVER WORKFLOW JOBS IN_FLIGHT OUT SOCKETS FETCH      (as the other clients; SOCKETS is 1; WORKFLOW is compact)
//
// It stops at the first thing that it does not expect.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define ROOM (256 << 10)
enum { POST, HISTORY, VIEW };

typedef struct {
  int fd, asked, replied, ended, n_events;
  long number;
  size_t have, left;  // bytes in `in`; bytes of an image still to come
  uint64_t sent_ns, done_ns, events_ns[256];
  char id[37], in[64 << 10];
} User;

static char *graph, *after_seed, scratch[ROOM], frames[ROOM];
static size_t before_seed, rest, frames_have;
static long jobs, begun, ended;
static int poller, in_flight, fetch, web_socket;
static uint32_t run;  // tells its ids from those of another run
static User *users;
static FILE *out;

static void fail(const char *what) {
  fprintf(stderr, "epoll: %s\n", what);
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int dial(int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (connect(fd, (struct sockaddr *)&a, sizeof a)) fail("no server");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

static void watch(int fd, uint32_t number) {
  struct epoll_event e = {.events = EPOLLIN, .data.u32 = number};
  epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
}

static void ask(User *u, int what) {
  char text[256];
  size_t n = sprintf(text, "GET %s%s HTTP/1.1\r\nHost: x\r\n\r\n", what == HISTORY ? "/history/" : "/view?filename=", u->id);
  u->asked = what, u->have = 0;
  if (write(u->fd, text, n) != (ssize_t)n) fail("a short write");
}

static void begin(User *u) {
  if (begun == jobs) return;
  u->number = begun++, u->asked = POST, u->have = u->replied = u->ended = u->n_events = 0;
  sprintf(u->id, "%08x-%04x-4%03x-8000-%012lx", (unsigned)(u - users), run >> 16, run & 0xfff, u->number);
  char head[256], intro[128], seed[24];
  size_t i = sprintf(intro, "{\"client_id\":\"c\",\"prompt_id\":\"%s\",\"prompt\":", u->id);
  size_t s = sprintf(seed, "%lu", 100000000000000ul + u->number);
  size_t h = sprintf(head, "POST /prompt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     i + before_seed + s + rest + 1);
  struct iovec parts[] = {{head, h}, {intro, i}, {graph, before_seed}, {seed, s}, {after_seed, rest}, {"}", 1}};
  u->sent_ns = now_ns();
  if (writev(u->fd, parts, 6) != (ssize_t)(h + i + before_seed + s + rest + 1)) fail("a short write");
}

static void finish(User *u) {
  fprintf(out, "{\"prompt_id\":\"%s\",\"sent_ns\":%lu,\"done_ns\":%lu,\"events\":[", u->id, u->sent_ns, u->done_ns);
  for (int i = 0; i < u->n_events; i++) fprintf(out, i ? ",%lu" : "%lu", u->events_ns[i] - u->sent_ns);
  fputs("]}\n", out);
  ended++;
  begin(u);
}

static void on_reply(User *u) {  // whole, but for an image's bytes
  if (strncmp(u->in, "HTTP/1.1 200", 12)) fail("a refusal");
  if (u->asked == POST) u->replied = 1;
  else if (u->asked == HISTORY) {
    if (!memmem(u->in, u->have, "\"completed\": true", 17)) fail("a job is not in the history");
    if (fetch) ask(u, VIEW);
    else finish(u);
    return;
  }
  if (u->asked == POST && u->ended) ask(u, HISTORY);
}

static void on_http(User *u) {
  if (u->left) {
    ssize_t n = read(u->fd, scratch, sizeof scratch);
    if (n <= 0) fail("the server hung up");
    if (!(u->left -= n)) finish(u);
    return;
  }
  ssize_t n = read(u->fd, u->in + u->have, sizeof u->in - 1 - u->have);
  if (n <= 0) fail("the server hung up");
  u->have += n, u->in[u->have] = 0;
  char *end = memmem(u->in, u->have, "\r\n\r\n", 4), *length = end ? strcasestr(u->in, "content-length:") : NULL;
  if (!length) return;
  size_t whole = end + 4 - u->in + strtoul(length + 15, NULL, 10);
  if (u->asked == VIEW) {
    if (!(u->left = whole - u->have)) finish(u);
  } else if (u->have == whole) on_reply(u);
}

static void on_message(const char *text, size_t n, uint64_t at) {
  const char *id = memmem(text, n, "\"prompt_id\": \"", 14);
  if (!id) return;  // about the queue
  User *u = &users[strtoul(id + 14, NULL, 16)];
  if (u->n_events < 256) u->events_ns[u->n_events++] = at;
  if (n < 43 || memcmp(text, "{\"type\": \"executing\", \"data\": {\"node\": null", 43)) return;
  u->ended = 1, u->done_ns = at;
  if (u->replied) ask(u, HISTORY);
}

static void on_frames(void) {
  ssize_t got = read(web_socket, frames + frames_have, sizeof frames - frames_have);
  if (got <= 0) fail("the WebSocket closed");
  uint64_t at = now_ns();
  size_t begin = 0;
  for (frames_have += got; frames_have - begin >= 4;) {
    uint8_t *p = (uint8_t *)frames + begin;
    size_t head = p[1] == 126 ? 4 : 2, n = p[1] == 126 ? p[2] << 8 | p[3] : p[1];
    if (p[1] == 127) fail("a frame above 64 KB");
    if (frames_have - begin < head + n) break;
    on_message((char *)p + head, n, at);
    begin += head + n;
  }
  memmove(frames, frames + begin, frames_have -= begin);
}

static void read_graph(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) fail("no workflow");
  graph = malloc(1 << 20);
  size_t n = fread(graph, 1, (1 << 20) - 1, file);
  graph[n] = 0;
  char *seed = strstr(graph, "\"seed\":");
  if (!seed) fail("no seed");
  before_seed = seed + 7 - graph;
  after_seed = graph + before_seed + strspn(graph + before_seed, "0123456789");
  rest = graph + n - after_seed;
  fclose(file);
}

int main(int argc, char **argv) {
  if (argc != 8) fail("SERVER WORKFLOW JOBS IN_FLIGHT OUT SOCKETS FETCH");
  int port = atoi(strrchr(argv[1], ':') + 1);
  read_graph(argv[2]);
  jobs = atol(argv[3]), in_flight = atoi(argv[4]), fetch = atoi(argv[7]), out = fopen(argv[5], "w");
  if (!out) fail("cannot write");
  run = now_ns() / 1000, poller = epoll_create1(0), web_socket = dial(port), users = calloc(in_flight, sizeof *users);
  dprintf(web_socket, "GET /ws?clientId=c HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
  for (char last[4] = {0}; memcmp(last, "\r\n\r\n", 4);) {
    memmove(last, last + 1, 3);
    if (read(web_socket, last + 3, 1) != 1) fail("no WebSocket");
  }
  watch(web_socket, UINT32_MAX);
  for (int i = 0; i < in_flight; i++) watch(users[i].fd = dial(port), i), begin(&users[i]);
  for (struct epoll_event events[256]; ended < jobs;) {
    int n = epoll_wait(poller, events, 256, -1);
    for (int i = 0; i < n; i++) {
      if (events[i].data.u32 == UINT32_MAX) on_frames();
      else on_http(&users[events[i].data.u32]);
    }
  }
  return fclose(out) ? 1 : 0;
}
