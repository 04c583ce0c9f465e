// The parts of the exerciser.
#pragma once

// Random operations on one file in `folder`, each compared with memory. 0: the file was always as it should be; else
// the step that showed otherwise is printed. At the end the file's content is what the host should see, too.
int random_file(const char* folder, unsigned long seed, long steps);
