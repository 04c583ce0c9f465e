#include "zone/store/signals.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace bulkhead::zone {

Result<EndSignals> EndSignals::take() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGWINCH}) sigaddset(&set, number);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return fail_errno("blocking signals");
  ::signal(SIGPIPE, SIG_IGN);
  EndSignals signals;
  signals.fd_ = UniqueFd{::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC)};
  if (!signals.fd_) return fail_errno("opening a signalfd");
  return signals;
}

int EndSignals::next() {
  signalfd_siginfo information;
  if (::read(fd_.get(), &information, sizeof information) != sizeof information) return 0;
  const int number = static_cast<int>(information.ssi_signo);
  if (number != SIGWINCH && first_ == 0) first_ = number;
  return number;
}

void EndSignals::restore_in_child() {
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
}

}  // namespace bulkhead::zone
