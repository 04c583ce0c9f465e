// Process 1 of the guest that the benches boot: says that user space runs, does what it is asked for, switches off.
// Arguments (on the kernel's command line behind "--"):
//   (none)        only the marker
//   hold          after the marker, wait for a line on the console: time to look at the monitor from outside
//   zbench NAME.. run /zbench with these names
// It is the whole of user space, so nothing here can report an error anywhere but on the console. As any process but
// number 1, it only prints the rate of the TSC in kHz.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <string>
#include <string_view>

namespace {

void say(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(1, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

double seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

long tsc_khz() {
  const double began = seconds();
  const unsigned long long first = __rdtsc();
  ::usleep(200'000);
  const double elapsed = seconds() - began;
  return static_cast<long>(static_cast<double>(__rdtsc() - first) / elapsed / 1000);
}

void open_console() {
  ::mkdir("/dev", 0755);
  ::mount("dev", "/dev", "devtmpfs", 0, nullptr);
  const int console = ::open("/dev/console", O_RDWR);
  if (console < 0) return;
  for (int descriptor = 0; descriptor < 3; ++descriptor) ::dup2(console, descriptor);
}

void wait_for_line() {
  char byte = 0;
  while (::read(0, &byte, 1) == 1 && byte != '\n' && byte != '\r') {
  }
}

void run_zbench(char** arguments) {
  ::mkdir("/proc", 0755);
  ::mkdir("/tmp", 0755);
  ::mount("proc", "/proc", "proc", 0, nullptr);
  ::mount("tmp", "/tmp", "tmpfs", 0, nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execv("/zbench", arguments);
    say("cannot run /zbench\n");
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  say("zbench done\n");
}

}  // namespace

int main(int count, char** arguments) {
  if (::getpid() != 1) {
    say(std::to_string(tsc_khz()) + "\n");
    return 0;
  }
  open_console();
  say("BULKHEAD-BENCH init\n");
  const std::string_view what = count > 1 ? arguments[1] : "";
  if (what == "hold") wait_for_line();
  if (what == "zbench") run_zbench(arguments + 1);
  ::sync();
  ::reboot(RB_POWER_OFF);
  for (;;) ::pause();
}
