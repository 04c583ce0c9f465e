// Dates for the RTC: seconds of the Unix epoch to fields and back, in the proleptic Gregorian calendar.
#pragma once
#include "base/ints.h"

namespace bulkhead::device {

struct CalendarTime {
  u32 year = 1970;  // with the century
  u32 month = 1;    // 1..12
  u32 day = 1;      // 1..31
  u32 weekday = 5;  // 1..7, Sunday is 1
  u32 hour = 0;     // 0..23
  u32 minute = 0, second = 0;
};

// `seconds` may lie before 1970; years 0..9999 are exact.
CalendarTime calendar_from_unix(i64 seconds);

// Takes any numbers, as a guest may write them: months outside 1..12 count as the nearest, larger days, hours, minutes
// and seconds run over into the next unit. The weekday is not looked at.
i64 unix_from_calendar(const CalendarTime& time);

}  // namespace bulkhead::device
