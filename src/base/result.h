// Errors as values. The host failing is a Result; a guest misbehaving is a reply and a counter; we being wrong is
// BH_ASSERT.
#pragma once
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <expected>
#include <string>
#include <utility>

namespace bulkhead {

// A failure of the host or of a file: says what was tried, on what, and what to do about it, in one line.
struct Error {
  std::string message;
};

template <class T>
using Result = std::expected<T, Error>;

template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...)});
}

// The same, with ": <text of errno>" behind it. Reads errno before anything else can change it.
template <class... Args>
[[nodiscard]] std::unexpected<Error> fail_errno(fmt::format_string<Args...> format, Args&&... args) {
  const int saved = errno;
  return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...) + ": " + std::strerror(saved)});
}

}  // namespace bulkhead

// Propagates the error of a Result<T> expression from a function that returns Result<U>.
#define BH_TRY(expression)                                                                                  \
  do {                                                                                                      \
    if (auto bh_result_ = (expression); !bh_result_) return std::unexpected(std::move(bh_result_.error())); \
  } while (false)

// BH_ASSIGN(auto x, f()): x = *f(), or return its error.
#define BH_ASSIGN(target, expression) BH_ASSIGN_I(target, expression, __COUNTER__)
#define BH_ASSIGN_I(target, expression, n) BH_ASSIGN_II(target, expression, n)
#define BH_ASSIGN_II(target, expression, n)                                     \
  auto bh_assign_##n = (expression);                                            \
  if (!bh_assign_##n) return std::unexpected(std::move(bh_assign_##n.error())); \
  target = std::move(*bh_assign_##n)
