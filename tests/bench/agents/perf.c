/* perf.c: `perf record` as an agent: the process starts one that profiles it, and steers it by two
   FIFOs. BENCH_PERF_GRAPH is what follows --call-graph: fp, or dwarf,SIZE. The event is cpu-clock,
   which needs no hardware counter; its period is given, not a frequency that perf would seek. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "agent.h"

static char directory[64], control[96], answers[96], unwanted[96];
static int control_fd = -1, answers_fd = -1;
static pid_t perf;

static int tell(const char *command)
{
    char answer[16];
    size_t got = 0;
    if (write(control_fd, command, strlen(command)) < 0) return -1;
    while (got < 4) { /* "ack\n" */
        ssize_t n = read(answers_fd, answer + got, sizeof answer - got);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        got += (size_t)n;
    }
    return 0;
}

int agent_begin(int hz, const char *path)
{
    char pid[16], period[16], fifos[256];
    const char *graph = getenv("BENCH_PERF_GRAPH");
    snprintf(directory, sizeof directory, "/tmp/bench-perf-XXXXXX");
    if (!mkdtemp(directory)) return -1;
    snprintf(control, sizeof control, "%s/control", directory);
    snprintf(answers, sizeof answers, "%s/answers", directory);
    /* not /dev/null: perf moves a file that it finds out of its way, and may be root */
    snprintf(unwanted, sizeof unwanted, "%s/data", directory);
    if (mkfifo(control, 0600) || mkfifo(answers, 0600)) return -1;
    control_fd = open(control, O_RDWR | O_CLOEXEC);
    answers_fd = open(answers, O_RDWR | O_CLOEXEC);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    snprintf(period, sizeof period, "%d", 1000000000 / hz);
    snprintf(fifos, sizeof fifos, "fifo:%s,%s", control, answers);
    perf = fork();
    if (perf == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
        unsetenv("LD_PRELOAD");
        execlp("perf", "perf", "record", "-q", "-e", "cpu-clock", "-c", period, "--call-graph", graph ? graph : "fp",
               "--delay=-1", "--control", fifos, "-o", path ? path : unwanted, "-p", pid, (char *)NULL);
        _exit(127);
    }
    return perf > 0 ? tell("enable\n") : -1;
}

void agent_pause(void) { tell("disable\n"); }

void agent_resume(void) { tell("enable\n"); }

int agent_end(char *json, size_t size)
{
    int status = 0;
    tell("disable\n");
    kill(perf, SIGINT);
    while (waitpid(perf, &status, 0) < 0 && errno == EINTR) {}
    unlink(control);
    unlink(answers);
    unlink(unwanted);
    rmdir(directory);
    snprintf(json, size, "\"perf_status\": %d", status);
    return 0;
}

/* The first number in schedstat: ns on a CPU. */
uint64_t agent_cpu(void)
{
    char path[64], text[64];
    int fd;
    ssize_t n;
    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)perf);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return strtoull(text, NULL, 10);
}

void agent_thread(void) {}
