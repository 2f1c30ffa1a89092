// SPDX-License-Identifier: Apache-2.0 OR MIT
/* What QEMU gives the guest: folders of the host over 9p, and a network. See vmm/hosts/src/qemu/extras.rs. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

/* QEMU's default network. */
#define ADDRESS		"10.0.2.15"
#define MASK		"255.255.255.0"
#define GATEWAY		"10.0.2.2"
#define NAME_SERVER	"10.0.2.3"

/* Large messages: each is a round trip through QEMU. */
#define OPTIONS		"trans=virtio,version=9p2000.L,msize=512000"

/* Parses "TAG ro PATH" or "TAG rw PATH" and mounts the share at `path`, or at PATH if that is NULL. */
static int mount_share(const char *share, const char *path, const char *options)
{
	char tag[32], mode[3];
	int at = 0;

	if (sscanf(share, "%31s %2s %n", tag, mode, &at) != 2 || !at)
		give_up("a share without a name in the job: %s", share);
	return mount(tag, path ? path : share + at, "9p", strcmp(mode, "ro") == 0 ? MS_RDONLY : 0, options);
}

static const char *place(const char *share)
{
	const char *path = strchr(share, '/');

	return path ? path : "";
}

static int is_root(const char *share)
{
	return strcmp(place(share), "/") == 0;
}

/* The root file system, if it is one of the host's folders. The guest never writes to it, so it may be cached. */
int mount_host_root(const struct job *job, const char *path)
{
	if (!job->shares[0] || !is_root(job->shares[0]))
		return 0;
	mkdir(path, 0755);
	if (mount_share(job->shares[0], path, OPTIONS ",cache=loose") != 0)
		give_up("the host's folder cannot be mounted as the root file system: %s", strerror(errno));
	return 1;
}

static void make_folders(const char *path)
{
	char folder[4096];
	char *slash;

	snprintf(folder, sizeof(folder), "%s/", path);
	for (slash = folder + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		mkdir(folder, 0755);
		*slash = '/';
	}
}

void mount_shares(const struct job *job)
{
	size_t item;

	for (item = 0; job->shares[item]; item++) {
		if (is_root(job->shares[item]))
			continue;
		make_folders(place(job->shares[item]));
		if (mount_share(job->shares[item], NULL, OPTIONS) != 0)
			give_up("cannot mount the share %s: %s", place(job->shares[item]), strerror(errno));
	}
}

static void set_address(struct sockaddr *address, const char *text)
{
	struct sockaddr_in *internet = (struct sockaddr_in *)address;

	memset(internet, 0, sizeof(*internet));
	internet->sin_family = AF_INET;
	inet_pton(AF_INET, text, &internet->sin_addr);
}

/* Returns 0 when the interface is up. */
static int bring_up(const char *name)
{
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), failed;

	if (fd < 0)
		return -1;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	set_address(&request.ifr_addr, ADDRESS);
	failed = ioctl(fd, SIOCSIFADDR, &request);
	set_address(&request.ifr_netmask, MASK);
	failed = failed || ioctl(fd, SIOCSIFNETMASK, &request);
	memset(&request.ifr_ifru, 0, sizeof(request.ifr_ifru));
	request.ifr_flags = IFF_UP;
	failed = failed || ioctl(fd, SIOCSIFFLAGS, &request);
	set_address(&route.rt_dst, "0.0.0.0");
	set_address(&route.rt_genmask, "0.0.0.0");
	set_address(&route.rt_gateway, GATEWAY);
	failed = failed || ioctl(fd, SIOCADDRT, &route);
	close(fd);
	return failed ? -1 : 0;
}

static int is_virtio(const char *name)
{
	char path[128], driver[128];
	ssize_t length;

	snprintf(path, sizeof(path), "/sys/class/net/%s/device/driver", name);
	length = readlink(path, driver, sizeof(driver) - 1);
	if (length < 0)
		return 0;
	driver[length] = 0;
	return strcmp(basename(driver), "virtio_net") == 0;
}

/* Gives the first virtio interface the address that QEMU assigns to it. */
void start_network(const struct job *job)
{
	struct if_nameindex *interfaces, *each;
	FILE *resolver;

	if (!job->network)
		return;
	interfaces = if_nameindex();
	for (each = interfaces; each && each->if_name && !is_virtio(each->if_name); each++)
		;
	if (!each || !each->if_name)
		give_up("there is no network interface of QEMU: is virtio_net loaded?");
	if (bring_up(each->if_name) != 0)
		give_up("cannot bring up %s: %s", each->if_name, strerror(errno));
	if_freenameindex(interfaces);
	/* It may be a symbolic link to a file of a service that does not run here. */
	unlink("/etc/resolv.conf");
	resolver = fopen("/etc/resolv.conf", "we");
	if (!resolver || fprintf(resolver, "nameserver " NAME_SERVER "\n") < 0)
		say("no name server is configured: %s", strerror(errno));
	if (resolver)
		fclose(resolver);
}
