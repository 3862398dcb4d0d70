/* What happens to a folder: counts what is written there, fails from the k-th time on as a full disk does, or keeps a
   log from which every state can be made that a power cut may leave. Loaded with LD_PRELOAD; `watch` starts it.

   gcc -shared -fPIC -O1 -o faults.so faults.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static size_t length;
static long limit, count;
static int journal = -1;
static __thread int inside;

/* Watches a folder; from the `fail_at`-th write on (0: never) there is no space; `log` may be NULL. */
void watch(const char *path, long fail_at, const char *log) {
  strncpy(folder, path, sizeof folder - 1);
  length = strlen(folder), limit = fail_at, count = 0;
  journal = log ? open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
}

long written(void) { return count; }

static int watched(const char *path) {
  return length && !inside && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int at(int fd, char *path) {
  char link[64];
  if (!length || inside || fd < 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, 4095);
  if (n < 0) return 0;
  path[n] = 0;
  return watched(path);
}

static const char *absolute(int dir, const char *path, char *out) {
  if (path[0] == '/' || dir != AT_FDCWD) return path;
  if (!getcwd(out, 4096)) return path;
  strncat(out, "/", 4095 - strlen(out));
  return strncat(out, path, 4095 - strlen(out));
}

/* One entry: kind, path, second path or data. */
static void note(char kind, const char *path, long offset, const void *data, size_t size) {
  if (journal < 0) return;
  char head[8300];
  int n = snprintf(head, sizeof head, "%c %ld %zu %s\n", kind, offset, size, path);
  inside = 1;
  struct iovec parts[2] = {{head, n}, {(void *)data, size}};
  syscall(SYS_writev, journal, parts, 2);
  inside = 0;
}

static int full(void) { return limit && ++count >= limit ? (errno = ENOSPC, 1) : (limit ? 0 : (count++, 0)); }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long place_of(int fd) {
  struct stat s;
  if (fcntl(fd, F_GETFL) & O_APPEND) return fstat(fd, &s) ? 0 : s.st_size;
  return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t size) {
  char path[4096];
  if (!at(fd, path)) return REAL(write)(fd, data, size);
  if (full()) {
    if (count > limit || size < 2) return errno = ENOSPC, -1;
    size /= 2; /* the disk takes a part of what was to be written */
  }
  long place = place_of(fd);
  ssize_t done = REAL(write)(fd, data, size);
  if (done > 0) note('W', path, place, data, done);
  return done;
}

static ssize_t put(ssize_t (*real)(int, const void *, size_t, off_t), int fd, const void *d, size_t n, off_t o) {
  char path[4096];
  if (at(fd, path)) {
    if (full()) return -1;
    note('W', path, o, d, n);
  }
  return real(fd, d, n, o);
}
ssize_t pwrite(int fd, const void *d, size_t n, off_t o) { return put(REAL(pwrite), fd, d, n, o); }
ssize_t pwrite64(int fd, const void *d, size_t n, off64_t o) { return put((void *)REAL(pwrite64), fd, d, n, o); }

static int opened(const char *name, int dir, const char *given, int flags, mode_t mode) {
  char buffer[4096];
  const char *path = absolute(dir, given, buffer);
  int (*real)(int, const char *, int, ...) = (void *)dlsym(RTLD_NEXT, "openat");
  (void)name;
  if (watched(path) && flags & (O_CREAT | O_TRUNC) && (flags & O_TRUNC || access(path, F_OK))) {
    if (full()) return -1;
    int fd = real(dir, given, flags, mode);
    if (fd >= 0) note('C', path, 0, "", 0);
    return fd;
  }
  return real(dir, given, flags, mode);
}
#define MODE(flags)                                   \
  mode_t mode = 0;                                    \
  if (flags & (O_CREAT | O_TMPFILE)) {                \
    va_list more;                                     \
    va_start(more, flags);                            \
    mode = va_arg(more, int);                         \
    va_end(more);                                     \
  }
int open(const char *p, int f, ...) { MODE(f) return opened("open", AT_FDCWD, p, f, mode); }
int open64(const char *p, int f, ...) { MODE(f) return opened("open64", AT_FDCWD, p, f, mode); }
int openat(int d, const char *p, int f, ...) { MODE(f) return opened("openat", d, p, f, mode); }
int openat64(int d, const char *p, int f, ...) { MODE(f) return opened("openat64", d, p, f, mode); }

int rename(const char *from, const char *to) {
  char a[4096], b[4096];
  const char *source = absolute(AT_FDCWD, from, a), *target = absolute(AT_FDCWD, to, b);
  if (!watched(target)) return REAL(rename)(from, to);
  if (full()) return -1;
  int done = REAL(rename)(from, to);
  if (!done) note('R', source, 0, target, strlen(target));
  return done;
}
int mkdir(const char *path, mode_t mode) {
  char a[4096];
  const char *whole = absolute(AT_FDCWD, path, a);
  if (!watched(whole) || !access(whole, F_OK)) return REAL(mkdir)(path, mode);
  if (full()) return -1;
  int done = REAL(mkdir)(path, mode);
  if (!done) note('D', whole, 0, "", 0);
  return done;
}
int unlink(const char *path) {
  char a[4096];
  const char *whole = absolute(AT_FDCWD, path, a);
  int done = REAL(unlink)(path);
  if (!done && watched(whole)) note('U', whole, 0, "", 0);
  return done;
}
static int synced(int fd, int done) {
  char path[4096];
  if (!done && at(fd, path)) note('S', path, 0, "", 0);
  return done;
}
int fsync(int fd) { return synced(fd, REAL(fsync)(fd)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)(fd)); }
