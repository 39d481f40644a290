/* Stands between a program and the C library's clock. Once the file FAULT_FILE is there, the next
 * look at the monotonic clock by the thread named FAULT_THREAD fails ("panic", for Rust's standard
 * library takes a clock that cannot be read for a bug) or never returns ("hang"). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int is_due(void)
{
    const char *file = getenv("FAULT_FILE");
    const char *thread = getenv("FAULT_THREAD");
    char name[16] = "";

    prctl(PR_GET_NAME, name);
    return file && thread && strcmp(name, thread) == 0 && access(file, F_OK) == 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int before = errno;

    if (clock == CLOCK_MONOTONIC && is_due()) {
        const char *kind = getenv("FAULT_KIND");

        while (kind && strcmp(kind, "hang") == 0)
            pause();
        errno = EINVAL;
        return -1;
    }
    errno = before;
    return (int)syscall(SYS_clock_gettime, clock, now);
}
