# What there is to do: make help
H := harness
ifdef BASE
O := $(or $(O),build/$(BASE))
endif
export O BASE KSRC JOBS ACCEL FORCE OUT ROWS HOST REPORT USERS_SECONDS USERS_DEBUG HEAL_SECONDS STRESS STRESS_DEBUG SOAK_SECONDS GATES SPARSE RECIPIENTS RANGE

.PHONY: help demo test bench users heal stress check bisect series tree refresh image image-base
help:
	@cat $(H)/help.txt

demo: ; @$(H)/demo
test: ; @$(H)/test
bench: ; @$(H)/bench/run
users: ; @$(H)/users
heal: ; @$(H)/heal
stress: ; @$(H)/stress
check: ; @$(H)/check
bisect: ; @$(H)/bisect
tree refresh series: ; @$(H)/patchset $@
image: ; @$(H)/build series
image-base: ; @$(H)/build base
