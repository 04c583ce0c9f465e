// The guest's user space, and the host's other end, of bench/net.
//   as process 1:  loads /modules in order, gives eth0 the address that "--" says (ADDRESS/LENGTH GATEWAY HOST
//   WHAT...), and then, for
//                  each WHAT: pingpong (the mean of round trips of one byte over TCP), or out or in (iperf3)
//   serve PORT     answers each byte with a byte
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <string>

namespace {

constexpr int kPort = 7007, kRounds = 3000;

double seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void load_modules() {
  for (int i = 0; i < 100; ++i) {
    const std::string path = "/modules/" + std::to_string(i) + ".ko";
    const int fd = open(path.c_str(), O_RDONLY);
    if (fd < 0) return;
    if (syscall(SYS_finit_module, fd, "", 0) != 0) perror(path.c_str());
    close(fd);
  }
}

sockaddr_in address_of(const char* text, int port = 0) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<unsigned short>(port));
  inet_pton(AF_INET, text, &address.sin_addr);
  return address;
}

void configure(std::string address, const char* gateway) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  ifreq request{};
  strcpy(request.ifr_name, "eth0");
  for (int i = 0; i < 1000 && ioctl(fd, SIOCGIFFLAGS, &request) != 0; ++i) usleep(10'000);
  const std::size_t slash = address.find('/');
  const int length = atoi(address.c_str() + slash + 1);
  address.resize(slash);
  sockaddr_in one = address_of(address.c_str());
  memcpy(&request.ifr_addr, &one, sizeof one);
  ioctl(fd, SIOCSIFADDR, &request);
  one.sin_addr.s_addr = htonl(~0u << (32 - length));
  memcpy(&request.ifr_addr, &one, sizeof one);
  ioctl(fd, SIOCSIFNETMASK, &request);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  ioctl(fd, SIOCSIFFLAGS, &request);
  rtentry route{};
  const sockaddr_in any = address_of("0.0.0.0"), via = address_of(gateway);
  memcpy(&route.rt_dst, &any, sizeof any);
  memcpy(&route.rt_genmask, &any, sizeof any);
  memcpy(&route.rt_gateway, &via, sizeof via);
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  ioctl(fd, SIOCADDRT, &route);
  strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  ioctl(fd, SIOCSIFFLAGS, &request);
  close(fd);
}

void pingpong(const char* host) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const sockaddr_in to = address_of(host, kPort);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) return perror("BENCH pingpong: connecting");
  // The mean, for a guest's clock may be coarse; the first tenth warms up.
  double began = 0;
  char byte = 'x';
  for (int i = 0; i < kRounds + kRounds / 10; ++i) {
    if (i == kRounds / 10) began = seconds();
    if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) return perror("BENCH pingpong: talking");
  }
  printf("BENCH pingpong_us %.1f\n", 1e6 * (seconds() - began) / kRounds);
  close(fd);
}

void iperf(const char* host, bool in) {
  const char* arguments[] = {"iperf3", "-c", host, "-t", "8", "-O", "2", "-J", in ? "-R" : nullptr, nullptr};
  printf("BENCH-BEGIN %s\n", in ? "in" : "out");
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    execv("/usr/bin/iperf3", const_cast<char**>(arguments));
    _exit(127);
  }
  waitpid(child, nullptr, 0);
  printf("BENCH-END\n");
  fflush(stdout);
}

int serve() {
  signal(SIGCHLD, SIG_IGN);
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in here = address_of("0.0.0.0", kPort);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&here), sizeof here) != 0 || listen(listener, 5) != 0) return 1;
  for (int fd; (fd = accept(listener, nullptr, nullptr)) >= 0; close(fd)) {
    if (fork() != 0) continue;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    char byte;
    while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1) {
    }
    _exit(0);
  }
  return 1;
}

}  // namespace

int main(int count, char** arguments) {
  if (getpid() != 1) return serve();
  for (const char* const type : {"proc", "sysfs", "devtmpfs"}) {
    const std::string at = type[0] == 'p' ? "/proc" : type[0] == 's' ? "/sys" : "/dev";
    mkdir(at.c_str(), 0755);
    mount(type, at.c_str(), type, 0, nullptr);
  }
  mkdir("/tmp", 0777);
  const int console = open("/dev/console", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) dup2(console, fd);
  load_modules();
  if (count > 3) configure(arguments[1], arguments[2]);
  for (int i = 4; i < count; ++i) {
    const std::string what = arguments[i];
    if (what == "pingpong") pingpong(arguments[3]);
    if (what == "in" || what == "out") iperf(arguments[3], what == "in");
    fflush(stdout);
  }
  sync();
  reboot(RB_AUTOBOOT);
}
