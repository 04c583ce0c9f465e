#include "block/async/frame_pool.h"

#include <array>
#include <new>
#include <utility>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BH_PLAIN_FRAMES 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define BH_PLAIN_FRAMES 1
#endif
#endif

namespace bulkhead::block {
namespace {

constexpr std::size_t kStep = 64, kClasses = 32;  // frames up to 2 KiB
constexpr unsigned kKeep = 512;                   // of each class

struct Spare {
  Spare* next;
};
struct Lists {
  std::array<Spare*, kClasses> first{};
  std::array<unsigned, kClasses> count{};
  bool closed = false;
  ~Lists() {
    closed = true;  // frames may end later than this thread's statics
    for (Spare* one : first)
      while (one != nullptr) ::operator delete(std::exchange(one, one->next));
  }
};
#ifdef BH_PLAIN_FRAMES
constexpr bool kPooled = false;
#else
constexpr bool kPooled = true;
#endif
thread_local Lists lists;

std::size_t class_of(std::size_t size) { return (size + kStep - 1) / kStep - 1; }

}  // namespace

void* frame_pool_allocate(std::size_t size) {
  const std::size_t index = class_of(size);
  if (!kPooled || index >= kClasses) return ::operator new(size);
  Spare*& first = lists.first[index];
  if (first == nullptr) return ::operator new((index + 1) * kStep);
  --lists.count[index];
  return std::exchange(first, first->next);
}

void frame_pool_free(void* at, std::size_t size) {
  const std::size_t index = class_of(size);
  if (!kPooled || index >= kClasses || lists.closed || lists.count[index] >= kKeep) return ::operator delete(at);
  lists.first[index] = ::new (at) Spare{lists.first[index]};
  ++lists.count[index];
}

}  // namespace bulkhead::block
