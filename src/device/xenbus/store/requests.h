// The requests of the wire protocol, one payload in, one payload out [xenstore "Xenstore protocol details"].
#pragma once
#include <string>
#include <string_view>

#include "base/ints.h"
#include "device/xenbus/store/session.h"

namespace bulkhead::device::xenbus::store {

struct Answer {
  u32 type = 0;  // the request's own, or XS_ERROR
  std::string payload;
};

// `payload` is a copy that nobody changes meanwhile, of at most XENSTORE_PAYLOAD_MAX bytes; so is the answer's.
Answer answer(Store& store, Session& session, u32 type, u32 transaction, std::string_view payload);

}  // namespace bulkhead::device::xenbus::store
