// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "others.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

bool check(bool holds, const char *what)
{
	printf("%s - %s\n", holds ? "ok" : "NOT OK", what);
	fflush(stdout);
	return holds;
}

void post_write(struct ibv_qp *qp, struct ibv_mr *from, uint32_t length, uint64_t to, uint32_t rkey)
{
	struct ibv_sge piece = { .addr = (uintptr_t)from->addr, .length = length, .lkey = from->lkey };
	struct ibv_send_wr *bad, request = {
		.opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED, .sg_list = &piece, .num_sge = 1,
		.wr.rdma = { .remote_addr = to, .rkey = rkey } };

	if (ibv_post_send(qp, &request, &bad))
		die("a request cannot be posted");
}

bool others_work(void)
{
	unsigned char *memory = xshared(2 * BLOCK);
	struct verbs_port port;
	struct pairs pairs;
	struct ibv_mr *mr;
	struct ibv_wc wc;
	bool right;

	verbs_open_port(&port, NULL);
	pairs_open(&pairs, &port, &port, 1, 4);
	mr = verbs_on_demand_mr(&port, memory, 2 * BLOCK, 0);
	memset(memory, 0x5a, BLOCK);
	post_write(pairs.senders[0], mr, BLOCK, (uintptr_t)memory + BLOCK, mr->rkey);
	right = pairs_poll(&pairs, &wc, 1, HANG_NS / 1000000) == 1 && wc.status == IBV_WC_SUCCESS &&
		!memcmp(memory, memory + BLOCK, BLOCK);
	if (ibv_dereg_mr(mr))
		die("ibv_dereg_mr: %s", strerror(errno));
	pairs_close(&pairs);
	verbs_close_port(&port);
	munmap(memory, 2 * BLOCK);
	return right;
}

bool ends(pid_t child, int *status)
{
	uint64_t begin = now_ns();

	while (waitpid(child, status, WNOHANG) == 0) {
		if (now_ns() - begin > HANG_NS)
			return false;
		sleep_ms(10);
	}
	return true;
}

bool others_work_elsewhere(void)
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(!others_work());
	if (!ends(child, &status)) {
		kill(child, SIGKILL);
		return false;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
