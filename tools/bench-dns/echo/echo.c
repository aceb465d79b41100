// echo is the limit that bench-dns measures DNS servers against: it receives and sends in batches as fast as the kernel lets one
// thread, and answers nothing but octets. Its answers are as long as those of a DNS server: what a query of each kind is answered
// with, in octets beyond its own, are the arguments. The kind is what the first octet of the queried name says.
//
//	echo PORT THREADS ADDRESS POINTER MISSING
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { batch = 32, room = 1500, first = 13 };

static int port;
static int beyond[256];

static void *serve(void *unused) {
	(void)unused;
	int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1, size = 4 << 20;
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
		err(1, "cannot bind");

	static __thread uint8_t data[batch][room];
	static __thread struct sockaddr_in from[batch];
	struct iovec iov[batch];
	struct mmsghdr msgs[batch];
	memset(msgs, 0, sizeof msgs);
	for (int i = 0; i < batch; i++) {
		iov[i].iov_base = data[i];
		msgs[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_iov = &iov[i], .msg_iovlen = 1};
	}
	for (;;) {
		for (int i = 0; i < batch; i++) {
			iov[i].iov_len = room;
			msgs[i].msg_hdr.msg_namelen = sizeof from[i];
		}
		int n = recvmmsg(fd, msgs, batch, MSG_WAITFORONE, NULL);
		for (int i = 0; i < n; i++) {
			data[i][2] |= 0x80;
			iov[i].iov_len = msgs[i].msg_len + beyond[data[i][first]];
		}
		for (int sent = 0; sent < n;) {
			int m = sendmmsg(fd, msgs + sent, n - sent, 0);
			sent += m > 0 ? m : 1;
		}
	}
}

int main(int argc, char **argv) {
	if (argc != 6)
		errx(2, "usage: echo PORT THREADS ADDRESS POINTER MISSING");
	port = atoi(argv[1]);
	for (int c = '0'; c <= '9'; c++)
		beyond[c] = atoi(argv[4]);
	beyond['h'] = atoi(argv[3]);
	beyond['x'] = atoi(argv[5]);
	for (int i = atoi(argv[2]); i > 1; i--) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, serve, NULL) != 0)
			errx(1, "cannot start a thread");
	}
	serve(NULL);
}
