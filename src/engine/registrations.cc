#include "engine/registrations.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "base/thread.h"

namespace bulkhead::engine {
namespace {

void signal_eventfd(int fd) {
  const u64 one = 1;
  (void)!::write(fd, &one, sizeof one);  // full: it is signalled already
}

bool matches(const WritePlace& place, WritePlace::Space space, u64 address, u8 size, u64 value) {
  return place.space == space && place.address == address && place.size == size &&
         (!place.value || *place.value == value);
}

class WaitingThread final : public InterruptRegistration {
 public:
  WaitingThread(MsiSink& sink, UniqueFd events, UniqueFd end)
      : sink_{sink}, events_{std::move(events)}, end_{std::move(end)} {
    thread_ = start_thread("bh-interrupt", [this] { wait(); });
  }
  ~WaitingThread() override {
    signal_eventfd(end_.get());
    thread_.join();
  }
  int descriptor() const override { return events_.get(); }
  void set_message(const std::optional<Msi>& message) override {
    Lock lock{mutex_};
    message_ = message;
  }

 private:
  void wait() {
    pollfd polled[2] = {{events_.get(), POLLIN, 0}, {end_.get(), POLLIN, 0}};
    for (;;) {
      (void)::poll(polled, 2, -1);
      if (polled[1].revents != 0) return;
      u64 count = 0;
      if (::read(events_.get(), &count, sizeof count) == sizeof count) send();
    }
  }
  void send() {
    std::optional<Msi> message;
    {
      Lock lock{mutex_};
      message = message_;
    }
    if (message) sink_.send(*message);
  }

  MsiSink& sink_;
  const UniqueFd events_, end_;
  Mutex mutex_;
  std::optional<Msi> message_ BH_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace

class EmulatedRegistrations::Write final : public Registration {
 public:
  explicit Write(EmulatedRegistrations& all) : all_{all} {}
  ~Write() override {
    Lock lock{all_.mutex_};
    std::erase_if(all_.entries_, [this](const Entry& entry) { return entry.owner == this; });
    all_.any_ = !all_.entries_.empty();
  }

 private:
  EmulatedRegistrations& all_;
};

std::unique_ptr<Registration> EmulatedRegistrations::add_write(const WritePlace& place, int eventfd) {
  auto write = std::make_unique<Write>(*this);
  Lock lock{mutex_};
  entries_.push_back({write.get(), place, eventfd});
  any_ = true;
  return write;
}

Result<std::unique_ptr<InterruptRegistration>> EmulatedRegistrations::add_interrupt(MsiSink& sink) {
  UniqueFd events{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)}, end{::eventfd(0, EFD_CLOEXEC)};
  if (!events || !end) return fail_errno("making an eventfd for an interrupt");
  return std::make_unique<WaitingThread>(sink, std::move(events), std::move(end));
}

bool EmulatedRegistrations::takes(const Exit& exit) {
  if (!any_.load(std::memory_order_relaxed)) return false;
  const auto* const port = std::get_if<PortExit>(&exit);
  const auto* const mmio = std::get_if<MmioExit>(&exit);
  if (!(port != nullptr && port->write) && !(mmio != nullptr && mmio->write)) return false;
  Lock lock{mutex_};
  for (const Entry& entry : entries_) {
    const bool hit = port != nullptr
                         ? matches(entry.place, WritePlace::Space::kPort, port->port, port->size, port->value)
                         : matches(entry.place, WritePlace::Space::kMmio, mmio->address.value, mmio->size, mmio->value);
    if (!hit) continue;
    signal_eventfd(entry.eventfd);
    return true;
  }
  return false;
}

}  // namespace bulkhead::engine
