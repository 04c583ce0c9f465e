// The guest's user space of bench/disk-in-zone, as process 1: loads /modules in order, mounts /dev/vdb, which holds
// fio, and runs it on /dev/vda for so many seconds as the first word behind "--" says, once for each word after it
// (randread, randwrite, ...).
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace {

void load_modules() {
  for (int i = 0; i < 100; ++i) {
    const std::string path = "/modules/" + std::to_string(i) + ".ko";
    const int fd = open(path.c_str(), O_RDONLY);
    if (fd < 0) return;
    if (syscall(SYS_finit_module, fd, "", 0) != 0) perror(path.c_str());
    close(fd);
  }
}

void run(const std::string& kind, const std::string& seconds) {
  const std::string rw = "--rw=" + kind, runtime = "--runtime=" + seconds;
  const char* arguments[] = {"fio",
                             "--name=x",
                             "--filename=/dev/vda",
                             "--direct=1",
                             "--ioengine=libaio",
                             "--iodepth=32",
                             "--bs=4k",
                             rw.c_str(),
                             runtime.c_str(),
                             "--ramp_time=2",
                             "--time_based",
                             "--norandommap",
                             "--randrepeat=0",
                             "--thread",
                             "--output-format=json",
                             "--gtod_reduce=1",
                             nullptr};
  printf("BENCH-BEGIN %s\n", kind.c_str());
  fflush(stdout);
  if (fork() == 0) {
    execv("/usr/bin/fio", const_cast<char**>(arguments));
    perror("BENCH fio");
    _exit(127);
  }
  while (wait(nullptr) > 0) {
  }
  printf("BENCH-END\n");
  fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  mkdir("/dev", 0755);
  mount("devtmpfs", "/dev", "devtmpfs", 0, nullptr);
  const int console = open("/dev/console", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) dup2(console, fd);
  load_modules();
  mkdir("/root", 0755);
  for (int i = 0; i < 500 && access("/dev/vdb", F_OK) != 0; ++i) usleep(10'000);
  if (mount("/dev/vdb", "/root", "ext4", MS_RDONLY, nullptr) != 0 || chroot("/root") != 0 || chdir("/") != 0)
    perror("BENCH mounting");
  mount("devtmpfs", "/dev", "devtmpfs", 0, nullptr);
  mount("proc", "/proc", "proc", 0, nullptr);
  mount("sysfs", "/sys", "sysfs", 0, nullptr);
  mount("tmpfs", "/tmp", "tmpfs", 0, nullptr);
  chdir("/tmp");
  for (int i = 2; i < count; ++i)
    if (strchr(arguments[i], '=') == nullptr) run(arguments[i], arguments[1]);  // a monitor may append words of its own
  sync();
  reboot(RB_AUTOBOOT);
}
