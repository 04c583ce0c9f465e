bh_engine_conformance_test --gtest_filter='*kvm*' --gtest_brief=1
