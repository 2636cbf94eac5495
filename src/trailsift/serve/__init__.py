"""The dashboard and the HTTP API: one process over one lake.

The page in the browser (``static``) asks the API and nothing else, and the API calls the methods of ``trailsift.Lake``.
``endpoints`` lists them; ``openapi`` describes them; ``running`` runs them within limits; ``live`` follows the commits;
``security`` stands in front of all. Needs the extra ``serve``.
"""
