/* A disk that fails at one step of what a process writes below a folder, whatever library writes: for LD_PRELOAD.

   FAULT_FOLDER: the folder; FAULT_AT: the number of the step; FAULT_KIND: crash, an errno, or full, after which no
   write succeeds; FAULT_COUNT: a file that receives the number of steps. Half of what is written then is on the disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int steps = 0;
#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int below(const char *path) {
    const char *folder = getenv("FAULT_FOLDER");
    char full[8192];
    if (!folder || !path) return 0;
    if (path[0] != '/') {
        char here[4096];
        if (!getcwd(here, sizeof here)) return 0;
        snprintf(full, sizeof full, "%s/%s", here, path);
        path = full;
    }
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int mine(int fd) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

/* 0: go on; 1: fail, and errno says how; 2: the process ends after half of the step. */
static int step(int grows) {
    const char *at = getenv("FAULT_AT"), *kind = getenv("FAULT_KIND"), *count = getenv("FAULT_COUNT");
    int number = steps++;
    if (count) {
        FILE *file = fopen(count, "w");
        if (file) { fprintf(file, "%d", steps); fclose(file); }
    }
    if (!at || !kind || number < atoi(at)) return 0;
    if (!strcmp(kind, "full")) { if (grows) errno = ENOSPC; return grows; }
    if (number > atoi(at)) return 0;
    if (!strcmp(kind, "crash")) return 2;
    errno = atoi(kind);
    return 1;
}

static void end(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (mine(fd)) switch (step(1)) { case 1: return -1; case 2: real(fd, data, size / 2); end(); }
    return real(fd, data, size);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    if (mine(fd)) switch (step(1)) { case 1: return -1; case 2: real(fd, data, size / 2, at); end(); }
    return real(fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
#define PLAIN(name, parameters, arguments, ours, grows) \
    int name parameters { \
        REAL(name); \
        if (ours) switch (step(grows)) { case 1: return -1; case 2: end(); } \
        return real arguments; \
    }
PLAIN(fsync, (int fd), (fd), mine(fd), 0)
PLAIN(fdatasync, (int fd), (fd), mine(fd), 0)
PLAIN(ftruncate64, (int fd, off64_t size), (fd, size), mine(fd), 1)
PLAIN(ftruncate, (int fd, off_t size), (fd, size), mine(fd), 1)
PLAIN(unlink, (const char *path), (path), below(path), 0)
PLAIN(rename, (const char *from, const char *to), (from, to), below(to), 0)
PLAIN(mkdir, (const char *path, mode_t mode), (path, mode), below(path), 1)
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, int); va_end(more); \
        if ((flags & O_CREAT) && below(path)) switch (step(1)) { case 1: return -1; case 2: end(); } \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
