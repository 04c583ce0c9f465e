#include "block/async/executor.h"

#include <sys/eventfd.h>

#include "base/thread.h"

namespace bulkhead::block {
namespace {

struct PostedFunction final : Posted {
  explicit PostedFunction(std::function<void()> what) : function{std::move(what)} {}
  void run_posted() override {
    const std::unique_ptr<PostedFunction> self{this};
    function();
  }
  std::function<void()> function;
};

}  // namespace

Result<std::unique_ptr<Executor>> Executor::create(ExecutorOptions options) {
  std::unique_ptr<Executor> made{new Executor{std::move(options)}};
  Executor* const self = made.get();
  self->wake_ = UniqueFd{::eventfd(0, EFD_CLOEXEC)};
  if (!self->wake_) return fail_errno("cannot make an eventfd for a disk's thread");
  Result<void> started;
  std::binary_semaphore ready{0};
  self->thread_ = start_thread(self->options_.name, [self, &started, &ready] {
    // A ring belongs to the thread that made it.
    const IoEngineKind kind = self->options_.engine;
    self->engine_ = kind == IoEngineKind::kThreads ? make_thread_engine(self->options_.helpers)
                                                   : make_uring_engine(self->options_.helpers);
    started = self->engine_->start(self->wake_.get());
    if (!started && kind == IoEngineKind::kAuto) {
      self->engine_ = make_thread_engine(self->options_.helpers);
      started = self->engine_->start(self->wake_.get());
    }
    const bool good = started.has_value();
    ready.release();
    if (good) self->loop();
    self->engine_.reset();
  });
  ready.acquire();
  if (!started) return std::unexpected(started.error());
  return made;
}

Executor::~Executor() {
  if (!thread_.joinable()) return;
  post([this] { stop_ = true; });
  thread_.join();
}

void Executor::post(Posted& work) {
  Posted* head = posted_.load(std::memory_order_relaxed);
  do {
    work.next_ = head;
  } while (!posted_.compare_exchange_weak(head, &work));
  if (!asleep_.load() || !asleep_.exchange(false)) return;
  const u64 one = 1;
  BH_ASSERT(::write(wake_.get(), &one, sizeof one) == sizeof one);
}

void Executor::post(std::function<void()> work) { post(*new PostedFunction{std::move(work)}); }

void Executor::run(const std::function<void()>& function) {
  std::binary_semaphore done{0};
  post([&] {
    function();
    done.release();
  });
  done.acquire();
}

Detached Executor::finish(Task<void> task, std::binary_semaphore* done) {
  {
    Task<void> owned = std::move(task);
    co_await std::move(owned);
  }
  done->release();
}

Detached Executor::own(Executor* self, Task<void> task) {
  ++self->spawned_;
  co_await std::move(task);
  --self->spawned_;
}

void Executor::spawn(Task<void> task) { own(this, std::move(task)); }

Task<void> Executor::call(std::function<void()>& function) {
  IoOp op;
  op.kind = IoOp::Kind::kCall;
  op.function = &function;
  co_await io(op);
}

void Executor::make_ready(Ready& waiter) {
  waiter.next = nullptr;
  *last_ready_ = &waiter;
  last_ready_ = &waiter.next;
}

bool Executor::run_posted() {
  Posted* list = posted_.load(std::memory_order_relaxed) == nullptr ? nullptr : posted_.exchange(nullptr);
  if (list == nullptr) return false;
  Posted* in_order = nullptr;
  while (list != nullptr) {
    Posted* const next = list->next_;
    list->next_ = in_order;
    in_order = list;
    list = next;
  }
  while (in_order != nullptr) {
    Posted* const work = in_order;
    in_order = in_order->next_;  // before it runs: it may be posted again at once
    work->run_posted();
  }
  return true;
}

// Those that are ready now; who becomes ready meanwhile waits for the next turn, so that I/O gets its own.
bool Executor::run_ready() {
  Ready* list = std::exchange(first_ready_, nullptr);
  last_ready_ = &first_ready_;
  if (list == nullptr) return false;
  while (list != nullptr) {
    Ready* const waiter = list;
    list = list->next;
    waiter->handle.resume();
  }
  return true;
}

void Executor::at_turn_end(Posted& work) { work.next_ = std::exchange(turn_end_, &work); }

bool Executor::run_turn_end() {
  Posted* list = std::exchange(turn_end_, nullptr);
  const bool any = list != nullptr;
  while (list != nullptr) {
    Posted* const work = list;
    list = list->next_;
    work->run_posted();
  }
  return any;
}

void Executor::run_timers() {
  if (timers_.empty()) return;
  const Nanoseconds time = now();
  while (!timers_.empty() && timers_.begin()->first <= time) {
    make_ready(*timers_.begin()->second);
    timers_.erase(timers_.begin());
  }
}

void Executor::wait() {
  asleep_.store(true);
  if (posted_.load() != nullptr) {
    asleep_.store(false);
    return engine_->poll();
  }
  Nanoseconds timeout = ~Nanoseconds{0};
  if (!timers_.empty()) {
    const Nanoseconds time = now(), first = timers_.begin()->first;
    timeout = first > time ? first - time : 0;
  }
  engine_->wait(timeout);
  asleep_.store(false);
}

void Executor::loop() {
  while (!stop_ || !idle() || posted_.load() != nullptr) {
    const bool posted = run_posted();
    run_timers();
    const bool resumed = run_ready();
    const bool ended = run_turn_end();
    if (posted || resumed || ended || first_ready_ != nullptr)
      engine_->poll();
    else
      wait();
  }
}

}  // namespace bulkhead::block
