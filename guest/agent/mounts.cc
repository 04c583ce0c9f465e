#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "guest/agent/agent.h"

namespace bulkhead::agent {
namespace {

char g_root_disk[24] = "/dev/vda";
constexpr int kDiskTimeoutMs = 10'000;
constexpr unsigned long kSafe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
bool g_root_is_writable = false;

bool mount_at(const char* type, const char* target, unsigned long flags, const char* data) {
  mkdir(target, 0755);
  return mount(type, target, type, flags, data) == 0;
}

// Root from the read-only disk with everything written kept in memory.
bool mount_overlay(const char* type, Failure& failure) {
  mkdir("/lower", 0755);
  if (mount(g_root_disk, "/lower", type, MS_RDONLY, nullptr) != 0)
    return failed(failure, "mounting the root disk as %s", type);
  if (!mount_at("tmpfs", "/upper", 0, "mode=0755")) return failed(failure, "mounting the memory file system");
  mkdir("/upper/data", 0755);
  mkdir("/upper/work", 0755);
  if (mount("overlay", "/zone", "overlay", 0, "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work") != 0)
    return failed(failure, "mounting the overlay over the root disk");
  return true;
}

// A root without any disk, for a zone whose containers bring theirs.
bool mount_memory(Failure& failure) {
  if (!mount_at("tmpfs", "/zone", 0, "mode=0755")) return failed(failure, "mounting the memory file system");
  for (const char* const folder : {"/zone/bin", "/zone/etc", "/zone/run", "/zone/tmp", "/zone/root"})
    mkdir(folder, 0755);
  const int from = open("/bulkhead/pod-agent", O_RDONLY | O_CLOEXEC);
  char path[64];
  snprintf(path, sizeof path, "/zone%s", kPodAgent);
  const int to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
  ssize_t size = -1;
  if (from >= 0 && to >= 0)
    while ((size = sendfile(to, from, nullptr, 1 << 30)) > 0) {
    }
  if (size != 0) return failed(failure, "copying the pod agent");
  close(from);
  close(to);
  unlink("/bulkhead/pod-agent");
  return true;
}

bool mount_root(Failure& failure) {
  char type[16], mode[16];
  if (!command_line_value("bulkhead.rootfs", type, sizeof type)) strcpy(type, "erofs");
  if (!command_line_value("bulkhead.root", mode, sizeof mode)) strcpy(mode, "overlay");
  mkdir("/zone", 0755);
  if (strcmp(mode, "memory") == 0) return mount_memory(failure);
  char disk[16];
  if (command_line_value("bulkhead.disk", disk, sizeof disk))
    snprintf(g_root_disk, sizeof g_root_disk, "/dev/%s", disk);
  if (!wait_for_disk(g_root_disk, kDiskTimeoutMs))
    return failed_plainly(failure, "no root disk %s appeared", g_root_disk);
  if (strcmp(mode, "writable") != 0) return mount_overlay(type, failure);
  g_root_is_writable = true;
  if (mount(g_root_disk, "/zone", type, 0, nullptr) != 0)
    return failed(failure, "mounting the root disk as %s, writable", type);
  return true;
}

// The initramfs' own memory is given back before the root goes over it.
void forget_initramfs() {
  unlink("/init");
  forget_modules();
}

bool make_root_the_root(Failure& failure) {
  for (const char* name : {"proc", "sys", "dev"}) {
    char from[16], to[32];
    snprintf(from, sizeof from, "/%s", name);
    snprintf(to, sizeof to, "/zone/%s", name);
    mkdir(to, 0755);
    if (mount(from, to, nullptr, MS_MOVE, nullptr) != 0) return failed(failure, "moving /%s into the root", name);
  }
  forget_initramfs();
  // The initial root cannot be unmounted or pivoted away from; it is covered [linux ramfs-rootfs-initramfs].
  if (chdir("/zone") != 0 || mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || chroot(".") != 0 || chdir("/") != 0)
    return failed(failure, "making the root disk the root");
  return true;
}

void mount_late() {
  mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
  mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
  mount_at("mqueue", "/dev/mqueue", kSafe, nullptr);
  mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
  mkdir("/run/lock", 01777);
  if (!g_root_is_writable) mount_at("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
  mount_at("cgroup2", "/sys/fs/cgroup", kSafe, "nsdelegate");
  (void)!symlink("/proc/self/fd", "/dev/fd");
  (void)!symlink("/proc/self/fd/0", "/dev/stdin");
  (void)!symlink("/proc/self/fd/1", "/dev/stdout");
  (void)!symlink("/proc/self/fd/2", "/dev/stderr");
}

// The zone's disks by names that do not depend on how they come to it: /dev/bulkhead/disk0 is the root, disk1 and up
// are those that were asked for. They appear when their driver has found them, so the command must not come first.
void name_disks() {
  char text[8];
  const int count = command_line_value("bulkhead.disks", text, sizeof text) ? atoi(text) : 1;
  mkdir("/dev/bulkhead", 0755);
  for (int i = 0; i < count && i < 26; ++i) {
    char disk[sizeof g_root_disk], name[32];
    snprintf(disk, sizeof disk, "%s", g_root_disk);
    disk[strlen(disk) - 1] = static_cast<char>('a' + i);
    snprintf(name, sizeof name, "/dev/bulkhead/disk%d", i);
    if (wait_for_disk(disk, kDiskTimeoutMs)) (void)!symlink(disk, name);
  }
}

}  // namespace

bool mount_early() {
  umask(0);
  const bool good = mount_at("proc", "/proc", kSafe, nullptr) & mount_at("sysfs", "/sys", kSafe, nullptr) &
                    mount_at("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
  umask(022);
  return good;
}

bool command_line_value(const char* name, char* out, unsigned size) {
  char line[4096] = {};
  const int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t length = read(fd, line, sizeof line - 1);
  close(fd);
  if (length <= 0) return false;
  const size_t name_length = strlen(name);
  for (char* word = strtok(line, " \n"); word != nullptr; word = strtok(nullptr, " \n")) {
    if (strncmp(word, name, name_length) != 0 || word[name_length] != '=') continue;
    snprintf(out, size, "%s", word + name_length + 1);
    return true;
  }
  return false;
}

bool enter_root(Failure& failure) {
  if (!mount_root(failure) || !make_root_the_root(failure)) return false;
  umask(0);
  mount_late();
  umask(022);
  name_disks();
  return true;
}

void settle_disks() {
  sync();
  if (g_root_is_writable) mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY, nullptr);
}

}  // namespace bulkhead::agent
