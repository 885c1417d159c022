// A null ComfyUI server: it answers as ComfyUI does and executes nothing, so what a run costs is the client's cost.
//
//   gcc -O2 -o nullcomfy nullcomfy.c && ./nullcomfy 8188        (Linux; 127.0.0.1 only; one thread, epoll)
//
// All routes also under /api:
//   POST /prompt         accepts any graph as a job; prompt_id and client_id are taken from the body. Other POSTs: 200, empty.
//   GET  /ws?clientId=   greets with a status, then carries the messages of that client's jobs, each job `msgs` of them:
//                        status, execution_start, execution_cached, executing and progress in turn, executed,
//                        execution_success, executing with node null.
//   GET  /history/ID     the entry of an ended job with one image of SaveImage, {} for any other (the last 65536 are kept).
//   GET  /api/jobs/ID    in_progress or completed; 404 in JSON for an id that it does not know.
//   GET  /prompt /system_stats /features /object_info[/CLASS] /view
//   GET  /cfg?KEY=N&...  sets what follows and the peak to 0; says okay, or busy (and sets nothing) while jobs run.
//   GET  /stat           jobs posted, running now, the most that ran at once since /cfg, sockets, messages and replies sent,
//                        the server's own CPU time, and when the first job since /cfg came (CLOCK_MONOTONIC; 0: none did).
//   GET  /stamps         a line for each job since /cfg that ended and is kept: its id, when it came, when its
//                        last message was sent (nanoseconds of CLOCK_MONOTONIC).
//   Any other GET: 404 in plain text. A chunked body: 411, and the connection ends.
//
// Keys of /cfg, with their defaults:
//   msgs=20    messages of a job, at least 7         emit=0     0: a job's in one send; 1: one send each; 2: spread over dur
//   dur=0      milliseconds that a job takes         jit=0      spread of dur: 0.5 means 75 % to 125 % of it
//   hist=14000 bytes of a history entry, about       img=1048576 bytes of a /view reply
//   ps=0       nodes in a progress_state, which then takes the place of every other progress (at most 200)
//   bc=0       1: status to every socket when a job comes and when it ends, as ComfyUI does
//   save=9     node id of the SaveImage
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_HEAD (64 << 10)
#define MAX_BODY (64 << 20)
#define KEPT_JOBS 65536  // in the history
#define BUCKETS 65536

typedef struct { char *at; size_t begin, end, room; } Buffer;

typedef struct Conn {
  int fd, is_socket, wants_write, draining, closed, is_dirty;
  Buffer in, out;
  const char *tail;  // goes out after `out`, uncopied
  size_t tail_size;
  char client[64];
  int place;  // in `sockets`
  struct Conn *next_client, *next_dirty, *next_closed;
} Conn;

typedef struct Job {
  char id[37], client[64];
  uint64_t number, began_ns, ended_ns, step_ns;
  long long create_ms, start_ms, end_ms;  // Unix
  int said;                               // messages sent so far
  struct Job *next;
} Job;

static struct { int msgs, emit, ps, bc, save; double dur, jit; size_t hist, img; } cfg = {20, 0, 0, 0, 9, 0, 0, 14000, 1 << 20};
static int poller, n_sockets, n_running, peak;
static uint64_t n_jobs, n_messages, n_replies, configured_ns, first_ns;
static Conn *clients[BUCKETS], *dirty, *closed_ones;
static Conn **sockets;
static int sockets_room;
static Job *jobs[BUCKETS], *kept[KEPT_JOBS];
static size_t n_kept;
static char *graph, *image;  // filler: the graph in a history entry, a picture's bytes

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static long long unix_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static void *grown(void *at, size_t size) {
  at = realloc(at, size);
  if (!at) { perror("realloc"); exit(1); }
  return at;
}

static unsigned hash(const char *s) {
  unsigned h = 2166136261u;
  while (*s) h = (h ^ (uint8_t)*s++) * 16777619u;
  return h % BUCKETS;
}

// --- buffers and connections

static char *reserve(Buffer *b, size_t n) {
  if (b->begin == b->end) b->begin = b->end = 0;
  if (b->end + n > b->room) {
    if (b->at) memmove(b->at, b->at + b->begin, b->end - b->begin);
    b->end -= b->begin, b->begin = 0;
    while (b->end + n > b->room) b->room = b->room ? 2 * b->room : 16384;
    b->at = grown(b->at, b->room);
  }
  return b->at + b->end;
}

static void put(Conn *c, const void *data, size_t n) {
  memcpy(reserve(&c->out, n), data, n);
  c->out.end += n;
}

static Conn *client_named(const char *name) {
  Conn *c = clients[hash(name)];
  while (c && strcmp(c->client, name)) c = c->next_client;
  return c;
}

static void forget_client(Conn *c) {
  if (!c->is_socket) return;
  Conn **place = &clients[hash(c->client)];
  while (*place && *place != c) place = &(*place)->next_client;
  if (!*place) return;  // it has been forgotten already
  *place = c->next_client;
  sockets[c->place] = sockets[--n_sockets], sockets[c->place]->place = c->place;
}

static void hang_up(Conn *c) {
  if (c->closed) return;
  forget_client(c);
  close(c->fd);
  c->closed = 1, c->next_closed = closed_ones, closed_ones = c;  // freed when no event can name it any more
}

static void want_write(Conn *c, int wanted) {
  if (c->wants_write == wanted) return;
  struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
  c->wants_write = wanted;
}

static void flush(Conn *c) {
  while (!c->closed && (c->out.begin < c->out.end || c->tail_size)) {
    size_t size = c->out.end - c->out.begin;
    struct iovec both[2] = {{c->out.at + c->out.begin, size}, {(char *)c->tail, c->tail_size}};
    ssize_t n = writev(c->fd, both, 2);
    if (n < 0) {
      if (errno == EAGAIN) { want_write(c, 1); return; }
      hang_up(c);
    } else if ((size_t)n <= size) c->out.begin += n;
    else c->out.begin = c->out.end, c->tail += n - size, c->tail_size -= n - size;
  }
  if (c->closed) return;
  want_write(c, 0);
  if (c->draining) shutdown(c->fd, SHUT_WR);
}

static void flush_later(Conn *c) {
  if (!c->is_dirty) c->is_dirty = 1, c->next_dirty = dirty, dirty = c;
}

static void put_frame(Conn *c, const char *text, size_t n) {
  uint8_t head[10] = {0x81, n};
  size_t h = 2;
  if (n > 65535) {
    head[1] = 127, h = 10;
    for (int i = 0; i < 8; i++) head[9 - i] = (uint64_t)n >> 8 * i;
  } else if (n > 125) head[1] = 126, head[2] = n >> 8, head[3] = n, h = 4;
  put(c, head, h);
  put(c, text, n);
  n_messages++;
}

// --- jobs

static int message(char *s, const Job *j) {
  int k = j->said, last = cfg.msgs - 1;
  const char *id = j->id;
  if (k == 0) return sprintf(s, "{\"type\": \"status\", \"data\": {\"status\": {\"exec_info\": {\"queue_remaining\": 1}}}}");
  if (k == 1)
    return sprintf(s, "{\"type\": \"execution_start\", \"data\": {\"prompt_id\": \"%s\", \"timestamp\": %lld}}", id, j->start_ms);
  if (k == 2)
    return sprintf(s, "{\"type\": \"execution_cached\", \"data\": {\"nodes\": [], \"prompt_id\": \"%s\", \"timestamp\": %lld}}",
                   id, j->start_ms);
  if (k == last) return sprintf(s, "{\"type\": \"executing\", \"data\": {\"node\": null, \"prompt_id\": \"%s\"}}", id);
  if (k == last - 1)
    return sprintf(s, "{\"type\": \"execution_success\", \"data\": {\"prompt_id\": \"%s\", \"timestamp\": %lld}}", id, j->end_ms);
  if (k == last - 2)
    return sprintf(s, "{\"type\": \"executed\", \"data\": {\"node\": \"%d\", \"display_node\": \"%d\", \"output\": {\"images\": "
                   "[{\"filename\": \"null_%08llu_.png\", \"subfolder\": \"\", \"type\": \"output\"}]}, \"prompt_id\": \"%s\"}}",
                   cfg.save, cfg.save, (unsigned long long)j->number, id);
  if (k % 4 == 3)
    return sprintf(s, "{\"type\": \"executing\", \"data\": {\"node\": \"%d\", \"display_node\": \"%d\", \"prompt_id\": \"%s\"}}",
                   k, k, id);
  if (cfg.ps && k % 2 == 0) {
    int n = sprintf(s, "{\"type\": \"progress_state\", \"data\": {\"prompt_id\": \"%s\", \"nodes\": {", id);
    for (int i = 0; i < cfg.ps; i++)
      n += sprintf(s + n, "%s\"%d\": {\"value\": %d.0, \"max\": 20.0, \"state\": \"running\", \"node_id\": \"%d\", \"prompt_id\": "
                   "\"%s\", \"display_node_id\": \"%d\", \"parent_node_id\": null, \"real_node_id\": \"%d\"}",
                   i ? ", " : "", i, k, i, id, i, i);
    return n + sprintf(s + n, "}}}");
  }
  return sprintf(s, "{\"type\": \"progress\", \"data\": {\"value\": %d, \"max\": %d, \"prompt_id\": \"%s\", \"node\": \"3\"}}",
                 k, cfg.msgs, id);
}

static void broadcast(void) {
  char s[128];
  int n = sprintf(s, "{\"type\": \"status\", \"data\": {\"status\": {\"exec_info\": {\"queue_remaining\": %d}}}}", n_running);
  for (int i = 0; i < n_sockets; i++) put_frame(sockets[i], s, n), flush_later(sockets[i]);
}

static Job *job_named(const char *id) {
  Job *j = jobs[hash(id)];
  while (j && strcmp(j->id, id)) j = j->next;
  return j;
}

static void keep(Job *j) {  // in the place of the oldest
  Job **slot = &kept[n_kept++ % KEPT_JOBS], *old = *slot;
  if (old) {
    Job **place = &jobs[hash(old->id)];
    while (*place != old) place = &(*place)->next;
    *place = old->next;
    free(old);
  }
  *slot = j;
}

// Send the next message of a job; 0 once it was the last.
static int say(Job *j) {
  static char text[128 << 10];
  Conn *socket = client_named(j->client);
  if (j->said == 1) j->start_ms = unix_ms();
  if (j->said == cfg.msgs - 2) j->end_ms = unix_ms();
  if (j->said == cfg.msgs - 1) j->ended_ns = now_ns();
  if (socket) {
    put_frame(socket, text, message(text, j));
    if (cfg.emit) flush(socket);
    else flush_later(socket);
  }
  if (++j->said < cfg.msgs) return 1;
  n_running--;
  keep(j);
  if (cfg.bc) broadcast();
  return 0;
}

static struct { uint64_t at; Job *job; } *timers;  // a binary heap
static int n_timers, timers_room;

static void set_timer(uint64_t at, Job *j) {
  if (n_timers == timers_room) timers = grown(timers, (timers_room = timers_room ? 2 * timers_room : 1024) * sizeof *timers);
  int i = n_timers++;
  for (int up; i && timers[up = (i - 1) / 2].at > at; i = up) timers[i] = timers[up];
  timers[i].at = at, timers[i].job = j;
}

static Job *next_timer(void) {
  Job *first = timers[0].job;
  int i = 0, last = --n_timers;
  for (int down; (down = 2 * i + 1) < last; i = down) {
    if (down + 1 < last && timers[down + 1].at < timers[down].at) down++;
    if (timers[down].at >= timers[last].at) break;
    timers[i] = timers[down];
  }
  timers[i] = timers[last];
  return first;
}

static const char *skip(const char *p, const char *end, const char *what) {
  while (p < end && *p && strchr(what, *p)) p++;
  return p;
}

// The string under a key of a JSON text, wherever it stands in it; 0 if there is none that fits.
static int json_text(const char *text, size_t n, const char *key, char *found, size_t room) {
  const char *end = text + n, *p = text, *close;
  char quoted[32];
  int q = sprintf(quoted, "\"%s\"", key);
  while ((p = memmem(p, end - p, quoted, q))) {
    p = skip(p + q, end, " \t\r\n");
    if (p == end || *p != ':') continue;  // it was a value
    p = skip(p + 1, end, " \t\r\n");
    if (p == end || *p != '"') continue;
    p++;
    close = memchr(p, '"', end - p);
    if (!close || (size_t)(close - p) >= room) return 0;
    memcpy(found, p, close - p);
    found[close - p] = 0;
    return 1;
  }
  return 0;
}

// --- HTTP

static void reply(Conn *c, const char *status, const char *type, const void *body, size_t n) {
  char head[256];
  n_replies++;
  put(c, head, sprintf(head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
                       "Server: Python/3.11 aiohttp/3.11.8\r\n%s\r\n", status, type, n, c->draining ? "Connection: close\r\n" : ""));
  if (body == image) c->tail = image, c->tail_size = n;
  else put(c, body, n);
}

__attribute__((format(printf, 3, 4))) static void reply_json(Conn *c, const char *status, const char *format, ...) {
  static char text[64 << 10];
  va_list values;
  va_start(values, format);
  int n = vsnprintf(text, sizeof text, format, values);
  va_end(values);
  reply(c, status, "application/json; charset=utf-8", text, n);
}

static void refuse(Conn *c, const char *status) {  // what follows on the connection cannot be understood
  c->draining = 1;
  reply(c, status, "text/plain; charset=utf-8", status, strlen(status));
}

static void post_prompt(Conn *c, const char *body, size_t n) {
  Job *j = grown(0, sizeof *j);
  memset(j, 0, sizeof *j);
  j->number = ++n_jobs, j->began_ns = now_ns(), j->create_ms = unix_ms();
  if (!first_ns) first_ns = j->began_ns;
  json_text(body, n, "client_id", j->client, sizeof j->client);
  if (!json_text(body, n, "prompt_id", j->id, sizeof j->id) || strlen(j->id) != 36 || job_named(j->id))
    sprintf(j->id, "%08x-%04x-4%03x-8%03x-%012llx", (unsigned)(j->number * 2654435761u), (unsigned)(j->number * 40503 & 0xffff),
            (unsigned)(j->number & 0xfff), (unsigned)(j->number >> 12 & 0xfff), (unsigned long long)j->number);
  Job **bucket = &jobs[hash(j->id)];
  j->next = *bucket, *bucket = j;
  if (++n_running > peak) peak = n_running;
  reply_json(c, "200 OK", "{\"prompt_id\": \"%s\", \"number\": %llu, \"node_errors\": {}}", j->id, (unsigned long long)j->number);
  if (cfg.bc) broadcast();
  if (cfg.emit == 2 || cfg.dur > 0) {
    double chance = ((j->number * 2654435761u >> 8) & 0xffff) / 65536.0 - 0.5;
    j->step_ns = cfg.dur * (1 + cfg.jit * chance) * 1e6 / cfg.msgs;
    set_timer(j->began_ns + j->step_ns, j);
    return;
  }
  if (cfg.emit) flush(c);  // so that the reply comes first
  while (say(j)) continue;
}

static void get_history(Conn *c, const char *id) {
  const Job *j = job_named(id);
  if (!j || j->said < cfg.msgs - 1) {  // the entry is there just before the last message
    reply_json(c, "200 OK", "{}");
    return;
  }
  static char text[2048];
  Buffer body = {0};
  size_t n = sprintf(text, "{\"%s\": {\"prompt\": [%llu, \"%s\", ", id, (unsigned long long)j->number, id), g = strlen(graph);
  memcpy(reserve(&body, n + g + sizeof text), text, n);
  memcpy(body.at + n, graph, g);
  n += g;
  n += sprintf(body.at + n, ", {\"client_id\": \"%s\", \"create_time\": %lld}, [\"%d\"]], \"outputs\": {\"%d\": {\"images\": "
               "[{\"filename\": \"null_%08llu_.png\", \"subfolder\": \"\", \"type\": \"output\"}]}}, \"status\": {\"status_str\": "
               "\"success\", \"completed\": true, \"messages\": [[\"execution_start\", {\"prompt_id\": \"%s\", \"timestamp\": %lld}], "
               "[\"execution_cached\", {\"nodes\": [], \"prompt_id\": \"%s\", \"timestamp\": %lld}], [\"execution_success\", "
               "{\"prompt_id\": \"%s\", \"timestamp\": %lld}]]}, \"meta\": {}}}",
               j->client, j->create_ms, cfg.save, cfg.save, (unsigned long long)j->number, id, j->start_ms, id, j->start_ms, id,
               j->end_ms);
  reply(c, "200 OK", "application/json; charset=utf-8", body.at, n);
  free(body.at);
}

static void make_filler(void) {
  graph = grown(graph, cfg.hist + 1024);
  size_t n = sprintf(graph, "{");
  for (int i = 0; n + 800 < cfg.hist; i++)
    n += sprintf(graph + n, "%s\"%d\": {\"inputs\": {\"seed\": 1234567890%d, \"steps\": 20, \"cfg\": 7.0, \"sampler_name\": \"euler\", "
                 "\"model\": [\"4\", 0], \"text\": \"a photo of a cat\"}, \"class_type\": \"KSampler\"}", i ? ", " : "", i, i);
  sprintf(graph + n, "}");
  image = grown(image, cfg.img + 8);
  uint32_t x = 1;
  for (size_t i = 0; i < cfg.img; i++) image[i] = (x = x * 1664525 + 1013904223) >> 24;
  memcpy(image, "\x89PNG\r\n\x1a\n", 8);
}

static double setting(const char *query, const char *key, double before) {
  size_t n = strlen(key);
  for (const char *p = strchr(query, '?'); p; p = strchr(p, '&'))
    if (!strncmp(++p, key, n) && p[n] == '=') return atof(p + n + 1);
  return before;
}

static void configure(Conn *c, const char *query) {
  if (!n_running) {
    cfg.msgs = setting(query, "msgs", cfg.msgs), cfg.emit = setting(query, "emit", cfg.emit), cfg.ps = setting(query, "ps", cfg.ps);
    cfg.dur = setting(query, "dur", cfg.dur), cfg.jit = setting(query, "jit", cfg.jit), cfg.bc = setting(query, "bc", cfg.bc);
    cfg.hist = setting(query, "hist", cfg.hist), cfg.img = setting(query, "img", cfg.img), cfg.save = setting(query, "save", cfg.save);
    if (cfg.msgs < 7) cfg.msgs = 7;
    if (cfg.ps > 200) cfg.ps = 200;
    peak = 0, first_ns = 0, configured_ns = now_ns();
    make_filler();
  }
  reply(c, "200 OK", "text/plain", n_running ? "busy" : "okay", 4);
}

static void sha1(const uint8_t *data, size_t n, uint8_t digest[20]) {  // of at most 119 bytes
  uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0}, w[80];
  uint8_t padded[128] = {0};
  size_t size = n < 56 ? 64 : 128;
  memcpy(padded, data, n);
  padded[n] = 0x80, padded[size - 2] = n >> 5, padded[size - 1] = n << 3;
  for (const uint8_t *p = padded; p < padded + size; p += 64) {
    for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], w[i] = w[i] << 1 | w[i] >> 31;
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 80; i++) {
      uint32_t f = i < 20 ? (b & c) | (~b & d) : i >= 40 && i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
      uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
      uint32_t t = (a << 5 | a >> 27) + f + e + k + w[i];
      e = d, d = c, c = b << 30 | b >> 2, b = a, a = t;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
  }
  for (int i = 0; i < 20; i++) digest[i] = h[i / 4] >> (24 - 8 * (i % 4));
}

static const char *header(const char *head, const char *name) {  // its value up to the end of the head, or NULL
  char line[64];
  int n = sprintf(line, "\r\n%s:", name);
  const char *found = strcasestr(head, line);
  return found ? found + n + strspn(found + n, " \t") : NULL;
}

static int up_to(const char *text, const char *ends) {  // characters before one of those, 63 at most
  size_t n = strcspn(text, ends);
  return n < 63 ? n : 63;
}

static void open_socket(Conn *c, const char *path, const char *head) {
  static const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const char *key = header(head, "sec-websocket-key"), *name = strstr(path, "clientId=");
  if (!key) { refuse(c, "400 Bad Request"); return; }
  char text[256], accept[29] = {0};
  uint8_t digest[21] = {0};  // and one more, for the padding
  int n = sprintf(text, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", up_to(key, " \r"), key);
  sha1((uint8_t *)text, n, digest);
  for (int i = 0; i < 28; i++) {
    uint32_t three = digest[i / 4 * 3] << 16 | digest[i / 4 * 3 + 1] << 8 | (i / 4 == 6 ? 0 : digest[i / 4 * 3 + 2]);
    accept[i] = digits[three >> (18 - 6 * (i % 4)) & 63];
  }
  accept[27] = '=';
  put(c, text, sprintf(text, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Accept: %s\r\n\r\n", accept));
  if (name) sprintf(c->client, "%.*s", up_to(name + 9, "&"), name + 9);
  if (!*c->client) sprintf(c->client, "%032llx", (unsigned long long)now_ns());
  Conn *before = client_named(c->client), **bucket = &clients[hash(c->client)];
  if (before) forget_client(before);  // it stays open and hears nothing more, as with ComfyUI
  c->is_socket = 1, c->next_client = *bucket, *bucket = c;
  if (n_sockets == sockets_room) sockets = grown(sockets, (sockets_room = sockets_room ? 2 * sockets_room : 64) * sizeof *sockets);
  sockets[c->place = n_sockets++] = c;
  put_frame(c, text, sprintf(text, "{\"type\": \"status\", \"data\": {\"status\": {\"exec_info\": {\"queue_remaining\": %d}}, "
                             "\"sid\": \"%s\"}}", n_running, c->client));
}

static void get_stat(Conn *c) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  double cpu_s = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
  reply_json(c, "200 OK", "{\"jobs\": %llu, \"running\": %d, \"peak\": %d, \"sockets\": %d, \"messages\": %llu, \"replies\": %llu, "
             "\"cpu_s\": %.6f, \"first_ns\": %llu}", (unsigned long long)n_jobs, n_running, peak, n_sockets,
             (unsigned long long)n_messages, (unsigned long long)n_replies, cpu_s, (unsigned long long)first_ns);
}

static void get_stamps(Conn *c) {
  Buffer lines = {0};
  for (size_t i = n_kept < KEPT_JOBS ? 0 : n_kept - KEPT_JOBS; i < n_kept; i++) {
    const Job *j = kept[i % KEPT_JOBS];
    if (j->began_ns < configured_ns) continue;
    char *line = reserve(&lines, 128);
    lines.end += sprintf(line, "%s %llu %llu\n", j->id, (unsigned long long)j->began_ns, (unsigned long long)j->ended_ns);
  }
  reply(c, "200 OK", "text/plain; charset=utf-8", lines.at ? lines.at : "", lines.end);
  free(lines.at);
}

static void get(Conn *c, char *path, const char *head) {
  const char *query = path + strcspn(path, "?");
  size_t n = query - path;
  int is_object_info = !strncmp(path, "/object_info/", 13) || (n == 12 && !strncmp(path, "/object_info", n));
  Job *j;
  if (!strncmp(path, "/history/", 9)) get_history(c, path + 9);
  else if (n == 3 && !strncmp(path, "/ws", n)) open_socket(c, path, head);
  else if (!strncmp(path, "/jobs/", 6)) {
    if ((j = job_named(path + 6)))
      reply_json(c, "200 OK", "{\"id\": \"%s\", \"status\": \"%s\"}", j->id, j->said < cfg.msgs - 1 ? "in_progress" : "completed");
    else reply_json(c, "404 Not Found", "{\"error\": \"Job not found\"}");
  } else if (n == 7 && !strncmp(path, "/prompt", n))
    reply_json(c, "200 OK", "{\"exec_info\": {\"queue_remaining\": %d}}", n_running);
  else if (!strcmp(path, "/system_stats"))
    reply_json(c, "200 OK", "{\"system\": {\"comfyui_version\": \"0.33.0\", \"argv\": [\"main.py\"], \"python_version\": \"3.11\"}, "
               "\"devices\": []}");
  else if (!strcmp(path, "/features") || is_object_info) reply_json(c, "200 OK", "{}");
  else if (n == 5 && !strncmp(path, "/view", n)) reply(c, "200 OK", "image/png", image, cfg.img);
  else if (n == 4 && !strncmp(path, "/cfg", n)) configure(c, path);
  else if (!strcmp(path, "/stat")) get_stat(c);
  else if (!strcmp(path, "/stamps")) get_stamps(c);
  else reply(c, "404 Not Found", "text/plain; charset=utf-8", "404: Not Found", 14);
}

static void on_http(Conn *c) {
  Buffer *b = &c->in;
  while (!c->is_socket && !c->draining && !c->closed && b->begin < b->end) {
    char *head = b->at + b->begin, *end = memmem(head, b->end - b->begin, "\r\n\r\n", 4);
    if (!end) {
      if (b->end - b->begin > MAX_HEAD) refuse(c, "431 Request Header Fields Too Large");
      return;
    }
    size_t size = end + 4 - head;
    end[2] = 0;
    const char *length = header(head, "content-length");
    unsigned long long body = length ? strtoull(length, 0, 10) : 0;
    char *path = strchr(head, ' '), *path_end = path ? strchr(path + 1, ' ') : NULL;
    if (header(head, "transfer-encoding")) { refuse(c, "411 Length Required"); return; }
    if (body > MAX_BODY) { refuse(c, "413 Payload Too Large"); return; }
    if (!path_end || path[1] != '/') { refuse(c, "400 Bad Request"); return; }
    if (b->end - b->begin < size + body) {
      end[2] = '\r';
      return;
    }
    b->begin += size + body;
    *path++ = *path_end = 0;
    if (!strncmp(path, "/api/", 5)) path += 4;
    if (!strcmp(head, "GET")) get(c, path, path_end + 1);
    else if (strcmp(head, "POST")) reply(c, "405 Method Not Allowed", "text/plain", "", 0);
    else if (!strcmp(path, "/prompt")) post_prompt(c, head + size, body);
    else reply(c, "200 OK", "text/plain", "", 0);
  }
}

static void on_frames(Conn *c) {  // only pings and the close frame are answered
  Buffer *b = &c->in;
  for (;;) {
    uint8_t *p = (uint8_t *)b->at + b->begin;
    size_t have = b->end - b->begin;
    if (have < 2) return;
    unsigned n = p[1] & 127, head = n == 126 ? 8 : 6;
    if (have < head) return;
    if (n == 126) n = p[2] << 8 | p[3];
    if (!(p[1] & 128) || n == 127) { hang_up(c); return; }  // a client masks, and has no reason to send 64 KB
    if (have < head + n) return;
    for (unsigned i = 0; i < n; i++) p[head + i] ^= p[head - 4 + i % 4];
    if ((p[0] & 15) == 8) {
      put(c, "\x88\x02\x03\xe8", 4);
      flush(c);
      hang_up(c);
      return;
    }
    if ((p[0] & 15) == 9 && n < 126) {
      uint8_t pong[2] = {0x8a, n};
      put(c, pong, 2);
      put(c, p + head, n);
    }
    b->begin += head + n;
  }
}

static void on_readable(Conn *c) {
  char *at = reserve(&c->in, 16385);
  ssize_t n = read(c->fd, at, c->in.room - c->in.end - 1);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) { hang_up(c); return; }
  if (c->draining) return;
  c->in.end += n, at[n] = 0;
  if (!c->is_socket) on_http(c);
  if (c->is_socket && !c->closed) on_frames(c);
  flush(c);
}

static void on_connect(int listener) {
  int fd, one = 1;
  while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
    Conn *c = grown(0, sizeof *c);
    memset(c, 0, sizeof *c);
    c->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
  }
}

static void after_events(void) {
  uint64_t now = now_ns();
  while (n_timers && timers[0].at <= now) {
    Job *j = next_timer();
    if (say(j)) set_timer(j->began_ns + j->step_ns * (j->said + 1), j);
  }
  while (dirty) {
    Conn *c = dirty;
    dirty = c->next_dirty, c->is_dirty = 0;
    flush(c);
  }
  while (closed_ones) {
    Conn *c = closed_ones;
    closed_ones = c->next_closed;
    free(c->in.at), free(c->out.at), free(c);
  }
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  make_filler();
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 8188),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
    perror("nullcomfy");
    return 1;
  }
  poller = epoll_create1(0);
  struct epoll_event e = {.events = EPOLLIN}, events[1024];
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
  for (;;) {
    uint64_t now = now_ns(), wait = n_timers && timers[0].at > now ? timers[0].at - now : 0;
    struct timespec limit = {wait / 1000000000, wait % 1000000000};
    int n = epoll_pwait2(poller, events, 1024, n_timers ? &limit : NULL, NULL);
    for (int i = 0; i < n; i++) {
      Conn *c = events[i].data.ptr;
      if (!c) { on_connect(listener); continue; }
      if (!c->closed && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
      if (!c->closed && events[i].events & EPOLLOUT) flush(c);
    }
    after_events();
  }
}
