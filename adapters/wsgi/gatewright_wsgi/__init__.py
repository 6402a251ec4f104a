"""The gateway as a Flask application, for gunicorn and every other WSGI server."""

from gatewright_wsgi.app import create_app
from gatewright_wsgi.choosing import check_config
from gatewright_wsgi.process import give_up_questions_on_sigterm

__all__ = ["check_config", "create_app", "give_up_questions_on_sigterm"]
