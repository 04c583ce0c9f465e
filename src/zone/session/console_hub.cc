#include "zone/session/console_hub.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"

namespace bulkhead::zone {

ConsoleHub::ConsoleHub(Wake& wake, ConsoleLog& log) : wake_{wake}, log_{log}, focus_{&ends_[0]} {
  for (End& end : ends_) end.hub_ = this;
}

void ConsoleHub::End::set_callbacks(std::function<void()> readable, std::function<void()> writable) {
  const Lock lock{hub_->mutex_};
  readable_ = std::move(readable);
  writable_ = std::move(writable);
}

std::size_t ConsoleHub::write(End& end, std::span<const std::byte> data) {
  std::size_t taken = data.size();
  {
    const Lock lock{mutex_};
    if (&end != &ends_[2]) focus_ = &end;  // debugcon cannot be typed into
    if (!dropping_) {
      taken = std::min(data.size(), kRoom - output_.size());
      output_.append(reinterpret_cast<const char*>(data.data()), taken);
    }
    end.starved_ = taken < data.size();
  }
  log_.feed(data.first(taken));
  wake_.notify();
  return taken;
}

std::size_t ConsoleHub::read(End& end, std::span<std::byte> out) {
  const Lock lock{mutex_};
  if (focus_ != &end) return 0;
  const std::size_t size = std::min(out.size(), input_.size());
  std::memcpy(out.data(), input_.data(), size);
  input_.erase(0, size);
  if (size > 0) wake_.notify();
  return size;
}

std::string ConsoleHub::output() const {
  const Lock lock{mutex_};
  return output_;
}

void ConsoleHub::consume_output(std::size_t bytes) {
  std::array<std::function<void()>, 3> waiting;
  {
    const Lock lock{mutex_};
    BH_ASSERT(bytes <= output_.size());
    output_.erase(0, bytes);
    for (std::size_t i = 0; i < ends_.size(); ++i)
      if (std::exchange(ends_[i].starved_, false)) waiting[i] = ends_[i].writable_;
  }
  for (const auto& writable : waiting)
    if (writable) writable();
}

std::size_t ConsoleHub::input_room() const {
  const Lock lock{mutex_};
  return kRoom - input_.size();
}

void ConsoleHub::put_input(std::span<const std::byte> bytes) {
  std::function<void()> readable;
  {
    const Lock lock{mutex_};
    BH_ASSERT(bytes.size() <= kRoom - input_.size());
    input_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    readable = focus_->readable_;
  }
  if (readable) readable();
}

void ConsoleHub::detach() {
  const Lock lock{mutex_};
  for (End& end : ends_) {
    end.readable_ = end.writable_ = {};
    end.starved_ = false;
  }
  focus_ = &ends_[0];
}

void ConsoleHub::drop_output() {
  std::size_t waiting;
  {
    const Lock lock{mutex_};
    dropping_ = true;
    waiting = output_.size();
  }
  consume_output(waiting);
}

}  // namespace bulkhead::zone
