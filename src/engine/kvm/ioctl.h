// One call of KVM's, repeated when a signal interrupts it.
#pragma once
#include <sys/ioctl.h>

#include <cerrno>

namespace bulkhead::engine::kvm {

// As ioctl(2): negative with errno set. KVM_RUN is the one call for which EINTR means something: not through here.
template <class Argument = unsigned long>
int kvm_ioctl(int fd, unsigned long request, Argument argument = 0) {
  int result;
  do result = ::ioctl(fd, request, argument);
  while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace bulkhead::engine::kvm
