# Buildroot's package of the guest half. CELLOS_TELEMETRY_OVERRIDE_SRCDIR in local.mk names the
# folder of the source.
CELLOS_TELEMETRY_VERSION = 0.1.0
CELLOS_TELEMETRY_SITE_METHOD = local
CELLOS_TELEMETRY_SITE ?= $(CELLOS_TELEMETRY_OVERRIDE_SRCDIR)
CELLOS_TELEMETRY_LICENSE = MIT
CELLOS_TELEMETRY_LICENSE_FILES = LICENSE
CELLOS_TELEMETRY_CONF_OPTS = \
	-Dhost_receiver=disabled -Dtests=disabled -Dman=disabled -Dseccomp=enabled

$(eval $(meson-package))
