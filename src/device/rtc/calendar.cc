#include "device/rtc/calendar.h"

#include <algorithm>
#include <chrono>

namespace bulkhead::device {
namespace chrono = std::chrono;

CalendarTime calendar_from_unix(i64 seconds) {
  const chrono::sys_seconds at{chrono::seconds{seconds}};
  const auto day = chrono::floor<chrono::days>(at);
  const chrono::year_month_day date{day};
  const auto of_day = static_cast<u32>((at - day).count());
  CalendarTime time;
  time.year = static_cast<u32>(static_cast<int>(date.year()));
  time.month = static_cast<unsigned>(date.month());
  time.day = static_cast<unsigned>(date.day());
  time.weekday = chrono::weekday{day}.c_encoding() + 1;
  time.hour = of_day / 3600;
  time.minute = of_day / 60 % 60;
  time.second = of_day % 60;
  return time;
}

i64 unix_from_calendar(const CalendarTime& time) {
  const chrono::year_month_day first{chrono::year{static_cast<int>(time.year % 10000)},
                                     chrono::month{std::clamp(time.month, 1u, 12u)}, chrono::day{1}};
  const i64 days = chrono::sys_days{first}.time_since_epoch().count() + i64{time.day} - 1;
  return days * 86400 + i64{time.hour} * 3600 + i64{time.minute} * 60 + time.second;
}

}  // namespace bulkhead::device
