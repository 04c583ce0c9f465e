// A frontend's page that we have mapped, and must give back.
#pragma once
#include <utility>

#include "device/xenbus/ports.h"

namespace bulkhead::device::xenbus {

enum class PageAccess : u8 { kRead, kWrite };  // what we may do with it

// Move-only; any thread, one at a time.
class GrantedPage {
 public:
  GrantedPage() = default;
  // Empty if the guest has granted us no such thing.
  GrantedPage(GrantPort& grants, u32 reference, PageAccess access)
      : grants_{&grants},
        reference_{reference},
        access_{access},
        data_{grants.map(reference, access == PageAccess::kWrite)} {}
  GrantedPage(GrantedPage&& other) noexcept
      : grants_{other.grants_},
        reference_{other.reference_},
        access_{other.access_},
        data_{std::exchange(other.data_, nullptr)} {}
  GrantedPage& operator=(GrantedPage&& other) noexcept {
    std::swap(grants_, other.grants_);
    std::swap(reference_, other.reference_);
    std::swap(access_, other.access_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~GrantedPage() {
    if (data_ != nullptr) grants_->unmap(reference_, access_ == PageAccess::kWrite);
  }

  std::byte* data() const { return data_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  GrantPort* grants_ = nullptr;
  u32 reference_ = 0;
  PageAccess access_ = PageAccess::kRead;
  std::byte* data_ = nullptr;
};

}  // namespace bulkhead::device::xenbus
