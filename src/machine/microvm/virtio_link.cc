#include "machine/microvm/virtio_link.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "base/thread.h"
#include "spec/virtio.h"

namespace bulkhead::machine {
namespace {

constexpr u32 kFirstPciLine = 16;  // lines below are the 8259's, too

void signal_eventfd(int fd) {
  const u64 one = 1;
  (void)!::write(fd, &one, sizeof one);
}

}  // namespace

// ---- EventLoop

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  std::unique_ptr<EventLoop> loop{new EventLoop};
  loop->poll_ = UniqueFd{::epoll_create1(EPOLL_CLOEXEC)};
  loop->end_ = UniqueFd{::eventfd(0, EFD_CLOEXEC)};
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  if (!loop->poll_ || !loop->end_ || ::epoll_ctl(loop->poll_.get(), EPOLL_CTL_ADD, loop->end_.get(), &event) != 0)
    return fail_errno("making a loop for notifications");
  return loop;
}

EventLoop::~EventLoop() {
  stop();
  *alive_ = false;
}

Result<int> EventLoop::add(std::function<void()> call) {
  auto source = std::make_unique<Source>();
  source->events = UniqueFd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  source->call = std::move(call);
  epoll_event event{.events = EPOLLIN, .data = {.ptr = source.get()}};
  if (!source->events || ::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, source->events.get(), &event) != 0)
    return fail_errno("making an eventfd for notifications");
  sources_.push_back(std::move(source));
  return sources_.back()->events.get();
}

void EventLoop::listen(int events, bool on) {
  const auto source = std::ranges::find(sources_, events, [](const auto& one) { return one->events.get(); });
  epoll_event event{.events = on ? u32{EPOLLIN} : 0, .data = {.ptr = source->get()}};
  (void)::epoll_ctl(poll_.get(), EPOLL_CTL_MOD, events, &event);
}

void EventLoop::start() {
  thread_ = start_thread("bh-virtio", [this] { run(); });
}

void EventLoop::stop() {
  if (!thread_.joinable()) return;
  signal_eventfd(end_.get());
  thread_.join();
}

void EventLoop::run() {
  for (;;) {
    epoll_event events[16];
    const int count = ::epoll_wait(poll_.get(), events, 16, -1);
    for (int i = 0; i < count; ++i) {
      auto* const source = static_cast<Source*>(events[i].data.ptr);
      if (source == nullptr) return;
      u64 times = 0;
      if (::read(source->events.get(), &times, sizeof times) == sizeof times) source->call();
    }
  }
}

// ---- VirtioLink

void VirtioLink::Line::set(bool asserted) {
  if (!direct.load(std::memory_order_acquire)) return ioapic->set(asserted);
  if (asserted) signal_eventfd(descriptor);
}

bool VirtioLink::possible(const engine::Partition& partition, const VirtioMmioWindow& window) {
  return partition.registrations_are_cheap() && window.gsi.value >= kFirstPciLine;
}

Result<std::unique_ptr<VirtioLink>> VirtioLink::create(engine::Partition& partition, device::IoApic& ioapic,
                                                       const VirtioMmioWindow& window) {
  std::unique_ptr<VirtioLink> none;
  if (!possible(partition, window)) return none;
  std::unique_ptr<VirtioLink> link{new VirtioLink{partition, window.base}};
  void* const page = ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return fail_errno("making a page of registers");
  link->page_ = static_cast<std::byte*>(page);
  if (!partition.show_page(window.base, link->page_)) return none;
  if (engine::InterruptController* const controller = partition.interrupt_controller()) {
    using Trigger = engine::InterruptController::Trigger;
    BH_ASSIGN(link->line_.edge, controller->line_by_event(window.gsi, Trigger::kEdge));
    link->line_.descriptor = link->line_.edge->descriptor();
    link->line_.direct = true;
    return link;
  }
  BH_ASSIGN(link->line_.events, partition.interrupt_on_event());
  link->line_.descriptor = link->line_.events->descriptor();
  link->line_.ioapic = &ioapic.line(window.gsi);
  ioapic.watch(window.gsi.value, [&line = link->line_, &lent = link->lent_](const std::optional<Msi>& message) {
    line.events->set_message(message);
    line.direct.store(message.has_value(), std::memory_order_release);
    // What the kernel signalled meanwhile went nowhere; one interrupt too many does no harm.
    if (message && lent.load()) signal_eventfd(line.descriptor);
  });
  return link;
}

// KVM has the page until the partition goes; nobody runs then.
VirtioLink::~VirtioLink() {
  registrations_.clear();
  if (page_ != nullptr) ::munmap(page_, kPageSize);
}

int VirtioLink::borrow_notifications(unsigned queue) {
  lent_ = true;
  loop_->listen(notified_[queue], false);
  return notified_[queue];
}

// A device that is reset when the machine goes finds the loop gone already.
void VirtioLink::give_back(unsigned queue) {
  if (*loop_is_there_) loop_->listen(notified_[queue], true);
}

Result<void> VirtioLink::connect(device::virtio::VirtioMmio& transport, EventLoop& loop) {
  using namespace spec::virtio;
  loop_ = &loop;
  loop_is_there_ = loop.alive();
  BH_ASSIGN(const int changed, loop.add([this, &transport] {
    {
      Lock lock{lock_};
      transport.refresh_page();
    }
    line_.pulse();
  }));
  transport.set_page(page_, [changed] { signal_eventfd(changed); });
  for (u32 queue = 0; queue < transport.session().queue_count(); ++queue) {
    BH_ASSIGN(const int notified, loop.add([this, &transport, queue] {
      Lock lock{lock_};
      (void)transport.write(mmio::kRegQueueNotify, queue, AccessSize::k4);
    }));
    BH_ASSIGN(auto write,
              partition_.notify_on_write({.address = window_.value + mmio::kRegQueueNotify, .value = queue}, notified));
    registrations_.push_back(std::move(write));
    notified_.push_back(notified);
  }
  transport.set_events(this);
  ignored_ = UniqueFd{::eventfd(0, EFD_CLOEXEC)};  // see VirtioMmio::set_page(): nobody reads it
  if (!ignored_) return fail_errno("making an eventfd");
  BH_ASSIGN(auto write,
            partition_.notify_on_write(
                {.address = window_.value + mmio::kRegInterruptAck, .value = mmio::kInterruptUsed}, ignored_.get()));
  registrations_.push_back(std::move(write));
  return {};
}

}  // namespace bulkhead::machine
