"""Settings of the Evidence Console: one file, everything from the environment.

A value that production cannot do without fails at start with a hint; ``DEBUG=true`` supplies
stand-ins that are fit for a laptop only.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from environs import Env

BASE_DIR = Path(__file__).resolve().parent.parent

env = Env()

DEBUG = env.bool("DEBUG", False)


def required(name: str, hint: str, debug_value: str) -> str:
    """Value of an environment variable; in production a missing one stops the start with ``hint``."""
    value = env.str(name, "")
    if value:
        return value
    if DEBUG:
        return debug_value
    raise ImproperlyConfigured(f"{name} is not set. {hint}")


SECRET_KEY = required(
    "SECRET_KEY",
    "Set it to at least 50 random characters, e.g. from "
    "python -c 'import secrets; print(secrets.token_urlsafe(50))', or DEBUG=true on a laptop.",
    "laptop-only-key-that-signs-nothing-of-value-0123456789abcdef",
)
ALLOWED_HOSTS = [
    host.strip()
    for host in required(
        "ALLOWED_HOSTS",
        "Set it to the host names this service answers to, comma separated.",
        "127.0.0.1,localhost",
    ).split(",")
]
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", [])

# Where SQLite, the static files and what belongs beside the database live.
CAVRA_DATA = Path(env.str("CAVRA_DATA", str(BASE_DIR / "data")))
CAVRA_PROFILE = env.str("CAVRA_PROFILE", "compatible")
if CAVRA_PROFILE not in ("compatible", "strict"):
    raise ImproperlyConfigured(f"CAVRA_PROFILE is {CAVRA_PROFILE!r}; it is either compatible or strict.")
# Name of the log. It is written into the genesis entry once and can never change afterwards.
CAVRA_LEDGER_ORIGIN = env.str("CAVRA_LEDGER_ORIGIN", "")
# Private keys that sign heads of the log, by reference: file:PATH or env:NAME, comma separated.
CAVRA_LEDGER_KEYS = [ref.strip() for ref in env.str("CAVRA_LEDGER_KEYS", "").split(",") if ref.strip()]
if not all(re.fullmatch(r"file:.+|env:[A-Za-z_][A-Za-z0-9_]*", ref) for ref in CAVRA_LEDGER_KEYS):
    raise ImproperlyConfigured(
        "CAVRA_LEDGER_KEYS holds references alone: file:PATH or env:NAME, comma separated."
    )
# Files that hold connectors' secrets, one each, named by file:NAME: as Docker and Kubernetes mount them.
CAVRA_SECRETS_DIR = env.str("CAVRA_SECRETS_DIR", "")
if CAVRA_SECRETS_DIR and not Path(CAVRA_SECRETS_DIR).is_absolute():
    raise ImproperlyConfigured("CAVRA_SECRETS_DIR is no absolute path. It reads like /run/secrets")
# The worker signs the head of the log this often, in seconds, while something is new.
CAVRA_CHECKPOINT_S = env.int("CAVRA_CHECKPOINT_S", 60)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "django_htmx",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "knox",
    "csp",
    "evidence",
    "recovery",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "cavra_site.redacting.LearnSecrets",
    # Innermost: it sees who the view found the caller to be, and what it answered.
    "evidence.access_log.AccessLog",
]

ROOT_URLCONF = "cavra_site.urls"
WSGI_APPLICATION = "cavra_site.wsgi.application"
# Paths of the contract have no trailing slash; a redirect would turn a POST into a GET.
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": env.dj_db_url("DATABASE_URL", f"sqlite:///{CAVRA_DATA / 'cavra.sqlite3'}")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = {
        # One writer at a time from the first statement on: a verb that read before it wrote would
        # otherwise fail with "database is locked" instead of waiting (DESIGN §6).
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        # FULL: a commit that was answered survives a power cut. recursive_triggers: the delete half
        # of INSERT OR REPLACE fires the guards too.
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA recursive_triggers=ON; PRAGMA foreign_keys=ON;"
        ),
    }
else:
    DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 0, "max_size": 20, "timeout": 20}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "evidence.Person"
AUTHENTICATION_BACKENDS = ["evidence.backends.RoleBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "/accounts/login/"
LOGIN_REDIRECT_URL = "/console/"
LOGOUT_REDIRECT_URL = "/accounts/login/"

LANGUAGE_CODE = "en"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = CAVRA_DATA / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": (
            "django.contrib.staticfiles.storage.StaticFilesStorage"
            if DEBUG
            else "whitenoise.storage.CompressedManifestStaticFilesStorage"
        )
    },
}

# TLS is the proxy's business; behind one, set HTTPS=true and cookies never travel in the clear.
HTTPS = env.bool("HTTPS", False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SESSION_COOKIE_HTTPONLY = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SILENCED_SYSTEM_CHECKS = [
    # Redirecting to HTTPS and preloading HSTS belong to the proxy that terminates TLS.
    "security.W004",
    "security.W008",
    "security.W012",
    "security.W016",
    "security.W005",
    "security.W021",
]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

# Where people reach this service: what messages link to. Without it nobody is told of anything.
CAVRA_BASE_URL = env.str("CAVRA_BASE_URL", "http://127.0.0.1:8000" if DEBUG else "").rstrip("/")
if CAVRA_BASE_URL and not re.fullmatch(
    r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~\-/]*)?", CAVRA_BASE_URL
):
    raise ImproperlyConfigured("CAVRA_BASE_URL is no address. It reads like https://console.example.com")
# A connector, by its key, through which a chat is told what the mails say.
CAVRA_NOTICE_CONNECTOR = env.str("CAVRA_NOTICE_CONNECTOR", "")

# Mail goes where EMAIL_URL says (smtp://, submission://, file://). Without it a laptop lays the mails down as
# files and production sends none.
_mail = env.dj_email_url("EMAIL_URL", f"file:///{CAVRA_DATA / 'mail'}" if DEBUG else "dummy:")
if "EMAIL_BACKEND" not in _mail:
    raise ImproperlyConfigured(
        "EMAIL_URL begins with none of smtp://, submission://, file:// and console://."
    )
EMAIL_BACKEND = _mail["EMAIL_BACKEND"]
EMAIL_HOST, EMAIL_PORT = _mail["EMAIL_HOST"], _mail["EMAIL_PORT"]
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail["EMAIL_HOST_USER"], _mail["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS, EMAIL_USE_SSL = _mail["EMAIL_USE_TLS"], _mail["EMAIL_USE_SSL"]
EMAIL_FILE_PATH = _mail["EMAIL_FILE_PATH"]
# A silent mail server must not hold up the worker, who has leases to end.
EMAIL_TIMEOUT = _mail["EMAIL_TIMEOUT"] or 10
DEFAULT_FROM_EMAIL = env.str("CAVRA_MAIL_FROM", f"cavra@{urlsplit(CAVRA_BASE_URL).hostname or 'localhost'}")
CAVRA_SENDS_MAIL = EMAIL_BACKEND != "django.core.mail.backends.dummy.EmailBackend"

# How long the access log keeps who read which evidence. It is no evidence itself.
CAVRA_ACCESS_LOG_DAYS = env.int("CAVRA_ACCESS_LOG_DAYS", 400)
if CAVRA_ACCESS_LOG_DAYS < 1:
    raise ImproperlyConfigured("CAVRA_ACCESS_LOG_DAYS is below 1; the access log is kept for at least a day.")

# Failures in a row from which on nothing but a canary is sent to a connector.
CAVRA_BREAKER_FAILURES = env.int("CAVRA_BREAKER_FAILURES", 5)
if CAVRA_BREAKER_FAILURES < 0:
    raise ImproperlyConfigured("CAVRA_BREAKER_FAILURES is below 0; 0 means that no connector is held back.")

# A body of the contract is small; what is larger is refused before it is parsed.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

REST_FRAMEWORK = {
    # Tokens first: an anonymous call is then answered with 401 and not 403.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "evidence.api.authentication.BearerAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["evidence.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["evidence.api.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "cavra_site.problems.exception_handler",
    "URL_FORMAT_OVERRIDE": None,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
REST_KNOX = {"TOKEN_TTL": None, "AUTO_REFRESH": False}

SPECTACULAR_SETTINGS = {
    "TITLE": "CAVRA Evidence Console",
    "DESCRIPTION": "Governed, provable retries of failed evidence deliveries.",
    "VERSION": "0.1.0",
    # Its schemas are plain JSON Schema, so any validator checks answers against them.
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    # No badge from a validator on the internet.
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "",
    # Closed lists stand where they are used; several fields of one name have lists of their own.
    "POSTPROCESSING_HOOKS": [],
}

# What Django shows passes the redactor; log records do where they are made (evidence.connectors.redaction.install).
MESSAGE_STORAGE = "cavra_site.redacting.Messages"
DEFAULT_EXCEPTION_REPORTER = "cavra_site.redacting.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "cavra_site.redacting.Filter"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", "INFO")},
}
