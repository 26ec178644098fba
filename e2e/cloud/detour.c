/* Leads a program's connections to one port of this machine to another one: see `detour` in wire.py. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int connect(int fd, const struct sockaddr *to, socklen_t length)
{
    int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    const char *from = getenv("DETOUR_FROM"), *over = getenv("DETOUR_TO");
    struct sockaddr_in led;

    if (from && over && to->sa_family == AF_INET && length >= sizeof led) {
        memcpy(&led, to, sizeof led);
        if (ntohs(led.sin_port) == atoi(from)) {
            led.sin_port = htons(atoi(over));
            return next(fd, (struct sockaddr *)&led, sizeof led);
        }
    }
    return next(fd, to, length);
}
